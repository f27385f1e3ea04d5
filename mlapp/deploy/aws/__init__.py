"""What targets on AWS share: clients whose errors name the missing right, and the account's registry."""
