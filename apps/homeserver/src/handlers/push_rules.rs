//! Push rules: which events a user wants to be told of. ruma has the rules; here they are kept.

use ropewalk::Failure;
use ruma::api::error::ErrorKind;
use ruma::push::{
    Action, AnyPushRule, InsertPushRuleError, NewPushRule, RemovePushRuleError, RuleKind, Ruleset,
};
use ruma::{OwnedUserId, UserId};

use super::Refusal;
use crate::storage::StorageError;
use crate::storage::databases::main::push_rules;
use crate::storage::engine::{Database, Txn, WriteTxn};

/// How many rules a user can have. They are looked at for each event of each of his rooms.
const RULES_MAX: usize = 1000;

/// Reads and changes users' push rules.
#[derive(Clone)]
pub struct PushRules {
    database: Database,
}

impl PushRules {
    /// Keeps them in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Returns all rules of a user.
    pub async fn all(&self, user_id: &UserId) -> Result<Ruleset, Failure> {
        let user_id = user_id.to_owned();
        self.database.read(move |txn| of_user(txn, &user_id)).await
    }

    /// Returns one rule.
    pub async fn get(
        &self,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: &str,
    ) -> Result<AnyPushRule, Failure> {
        let rules = self.all(user_id).await?;
        let rule = rules.get(kind, rule_id).ok_or_else(no_such_rule)?;
        Ok(rule.to_owned())
    }

    /// Makes or replaces a rule, perhaps in front of or behind another of the user's own.
    pub async fn put(
        &self,
        user_id: OwnedUserId,
        rule: NewPushRule,
        before: Option<String>,
        after: Option<String>,
    ) -> Result<(), Failure> {
        self.change(user_id, move |rules| {
            if rules.iter().count() >= RULES_MAX && rules.get(rule.kind(), rule.rule_id()).is_none()
            {
                return Err(Refusal::forbidden(format!("there are {RULES_MAX} rules already")));
            }
            rules.insert(rule, after.as_deref(), before.as_deref()).map_err(|error| match error {
                InsertPushRuleError::UnknownRuleId => {
                    Refusal::not_found("the rule named by `before` or `after` does not exist")
                }
                other => Refusal::invalid_param(other.to_string()),
            })
        })
        .await
    }

    /// Removes one of the user's own rules.
    pub async fn delete(
        &self,
        user_id: OwnedUserId,
        kind: RuleKind,
        rule_id: String,
    ) -> Result<(), Failure> {
        self.change(user_id, move |rules| {
            rules.remove(kind, &rule_id).map_err(|error| match error {
                RemovePushRuleError::ServerDefault => Refusal::new(
                    ErrorKind::InvalidParam,
                    "default rules cannot be removed; disable it instead",
                ),
                _ => no_such_rule(),
            })
        })
        .await
    }

    /// Switches a rule on or off.
    pub async fn set_enabled(
        &self,
        user_id: OwnedUserId,
        kind: RuleKind,
        rule_id: String,
        enabled: bool,
    ) -> Result<(), Failure> {
        self.change(user_id, move |rules| {
            rules.set_enabled(kind, &rule_id, enabled).map_err(|_| no_such_rule())
        })
        .await
    }

    /// Changes what a rule does.
    pub async fn set_actions(
        &self,
        user_id: OwnedUserId,
        kind: RuleKind,
        rule_id: String,
        actions: Vec<Action>,
    ) -> Result<(), Failure> {
        self.change(user_id, move |rules| {
            rules.set_actions(kind, &rule_id, actions).map_err(|_| no_such_rule())
        })
        .await
    }

    async fn change(
        &self,
        user_id: OwnedUserId,
        f: impl FnOnce(&mut Ruleset) -> Result<(), Refusal> + Send + 'static,
    ) -> Result<(), Failure> {
        self.database
            .write("change push rules", move |txn| -> Result<_, StorageError> {
                let mut rules = of_user(txn, &user_id)?;
                if let Err(refusal) = f(&mut rules) {
                    return Ok(Err(refusal));
                }
                store(txn, &user_id, &rules).map(Ok)
            })
            .await??;
        Ok(())
    }
}

/// Returns the rules of a user: the default set, and what he changed.
pub fn of_user(txn: &Txn<'_>, user_id: &UserId) -> Result<Ruleset, StorageError> {
    let defaults = Ruleset::server_default(user_id);
    let Some(stored) = push_rules::find(txn, user_id)? else { return Ok(defaults) };
    let mut rules: Ruleset = serde_json::from_str(&stored)
        .map_err(|_| StorageError::damaged("push rules are not a rule set"))?;
    // A newer release may know default rules that the stored set has not got.
    rules.update_with_server_default(defaults);
    Ok(rules)
}

fn store(txn: &mut WriteTxn<'_>, user_id: &UserId, rules: &Ruleset) -> Result<(), StorageError> {
    let text = serde_json::to_string(rules)
        .map_err(|_| StorageError::damaged("push rules cannot be written as JSON"))?;
    push_rules::set(txn, user_id, &text)
}

fn no_such_rule() -> Refusal {
    Refusal::not_found("there is no such push rule")
}
