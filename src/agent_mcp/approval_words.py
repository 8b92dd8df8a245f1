"""What a person can say to the use of a tool. Apart, so that doors can say it without Strands."""

APPROVED = "approve"
DENIED = "deny"
