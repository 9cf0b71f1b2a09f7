"""Users of the deployment's user pool, in Amazon Cognito."""

from collections.abc import Callable
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

    def delete_of_tenant(
        self, tenant_id: str, after: str | None, out_of_time: Callable[[], bool] = lambda: False
    ) -> tuple[int, str | None]:
        """Delete users of a tenant from a place of the list on; return how many, and where to go on, if anywhere.

        All users of the pool are read: ListUsers cannot search for attributes of a pool's own. Operators and
        viewers stay, whatever tenant they belonged to before.
        """
        deleted = 0
        while True:
            place = {"PaginationToken": after} if after else {}
            with translated():
                page = client("cognito-idp").list_users(UserPoolId=self.pool_id, Limit=PAGE, **place)
            for user in page["Users"]:
                attributes = {each["Name"]: each["Value"] for each in user.get("Attributes", [])}
                if attributes.get(TENANT_CLAIM) == tenant_id and not self._is_of_provider(user["Username"]):
                    self._delete(user["Username"])
                    deleted += 1
            after = page.get("PaginationToken")
            if after is None or out_of_time():
                return deleted, after

    def _is_of_provider(self, name: str) -> bool:
        with translated():
            groups = client("cognito-idp").admin_list_groups_for_user(UserPoolId=self.pool_id, Username=name)
        return bool({GROUP_OF[Role.OPERATOR], GROUP_OF[Role.VIEWER]} & {g["GroupName"] for g in groups["Groups"]})

    def _delete(self, name: str) -> None:
        try:
            with translated():
                client("cognito-idp").admin_delete_user(UserPoolId=self.pool_id, Username=name)
        except ClientError as error:
            if code_of(error) != "UserNotFoundException":
                raise
