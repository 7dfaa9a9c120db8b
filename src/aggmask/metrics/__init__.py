"""How good the masks are: COCO mask AP, equal to pycocotools to the last digit, for any number of processes."""
