//! Lists in pages: `after` is the id that the page before ended with.

use crate::server::error::ApiError;
use crate::server::query::Query;
use serde::Serialize;
use utoipa::ToSchema;

/// The parameters of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageQuery {
    after: Option<String>,
    limit: usize,
    ascending: bool,
}

impl PageQuery {
    /// Reads `after`, an id with this prefix, `limit`, from 1 to `max_limit`, and `order`.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn new(query: &Query, prefix: &str, limit: usize, max_limit: usize) -> Result<Self, ApiError> {
        let after = query.text("after");
        if let Some(after) = after.filter(|after| !after.starts_with(prefix)) {
            let message =
                format!("found {after:?}, expected the id of an item of the list, such as {prefix}…");
            return Err(ApiError::invalid_param("after", message));
        }
        let ascending = match query.text("order") {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(other) => {
                return Err(ApiError::invalid_param(
                    "order",
                    format!("found {other:?}, expected asc or desc"),
                ));
            }
        };
        let limit = query.integer("limit", 1..=max_limit)?.unwrap_or(limit);
        Ok(Self { after: after.map(String::from), limit, ascending })
    }

    /// Returns the page of a list whose items are the newest first, and whose ids sort in the order of
    /// creation. So `after` may be of an item that has been deleted since.
    pub fn page<T>(&self, newest_first: Vec<T>, id: impl Fn(&T) -> &str) -> Page<T> {
        let mut items = newest_first;
        if self.ascending {
            items.reverse();
        }
        if let Some(after) = self.after.as_deref() {
            items.retain(|item| if self.ascending { id(item) > after } else { id(item) < after });
        }
        let has_more = items.len() > self.limit;
        items.truncate(self.limit);
        let id_of = |item: Option<&T>| item.map(|item| id(item).to_string());
        Page {
            object: "list",
            first_id: id_of(items.first()),
            last_id: id_of(items.last()),
            data: items,
            has_more,
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// `list`
    object: &'static str,
    /// The items.
    data: Vec<T>,
    /// Id of the first item; null if there is none.
    first_id: Option<String>,
    /// Id of the last item, which is the next page's `after`; null if there is none.
    last_id: Option<String>,
    /// Whether there are items after these.
    has_more: bool,
}

impl<T> Page<T> {
    /// Returns the page with its items changed.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        let Self { object, data, first_id, last_id, has_more } = self;
        Page { object, data: data.into_iter().map(change).collect(), first_id, last_id, has_more }
    }
}
