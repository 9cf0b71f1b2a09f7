"""Users of the deployment's user pool, in Amazon Cognito."""

from dataclasses import dataclass
from secrets import token_urlsafe

from botocore.exceptions import ClientError

from trainyard.adapters.aws.clients import client
from trainyard.adapters.aws.errors import code_of, translated
from trainyard.contracts.claims import GROUP_OF, TENANT_CLAIM
from trainyard.domain.api_keys import user_name_of
from trainyard.domain.principals import Role

PAGE = 60
"""Users (Cognito API reference, ListUsers)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CognitoUsers:
    """The users of a pool whose user names are e-mail addresses."""

    pool_id: str

    def make_key(self, key_id: str, tenant_id: str, role: Role) -> str:
        """Make the user of an API key, and return its secret; one that is there already gets another secret."""
        name, secret = (
            user_name_of(key_id),
            f"Ty1-{token_urlsafe(32)}",
        )  # all kinds of characters, as a policy may ask for
        attributes = {"email": name, TENANT_CLAIM: tenant_id}
        with translated():
            try:
                client("cognito-idp").admin_create_user(
                    UserPoolId=self.pool_id,
                    Username=name,
                    UserAttributes=[{"Name": key, "Value": value} for key, value in attributes.items()],
                    MessageAction="SUPPRESS",
                )
            except ClientError as error:
                if code_of(error) != "UsernameExistsException":
                    raise
            client("cognito-idp").admin_set_user_password(
                UserPoolId=self.pool_id, Username=name, Password=secret, Permanent=True
            )
            client("cognito-idp").admin_add_user_to_group(
                UserPoolId=self.pool_id, Username=name, GroupName=GROUP_OF[role]
            )
        return secret

    def delete_key(self, key_id: str) -> None:
        """Idempotent."""
        self._delete(user_name_of(key_id))

    def delete_of_tenant(self, tenant_id: str) -> int:
        """Delete all users of a tenant, persons and keys; return how many there were.

        All users of the pool are read: ListUsers cannot search for attributes of a pool's own.
        """
        names, pages = [], client("cognito-idp").get_paginator("list_users")
        with translated():
            for page in pages.paginate(UserPoolId=self.pool_id, PaginationConfig={"PageSize": PAGE}):
                for user in page["Users"]:
                    attributes = {each["Name"]: each["Value"] for each in user.get("Attributes", [])}
                    if attributes.get(TENANT_CLAIM) == tenant_id:
                        names.append(user["Username"])
        for name in names:
            self._delete(name)
        return len(names)

    def _delete(self, name: str) -> None:
        try:
            with translated():
                client("cognito-idp").admin_delete_user(UserPoolId=self.pool_id, Username=name)
        except ClientError as error:
            if code_of(error) != "UserNotFoundException":
                raise
