"""The measures, one file each; nothing else in `evaluation` names one."""
