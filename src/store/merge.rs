//! Reads several sorted lists as one.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::StoreError;

/// Most lists that are read at the same time. In DynamoDB, each may need a connection.
const AT_ONCE: usize = 8;

/// Returns the first entries after a given one, merged from several sorted lists. `page` returns the
/// next entries of one list. No two entries are equal.
///
/// The lists are shards: each of them probably has an equal share of the result. So a list is asked
/// for twice that share first, and for more only if the result may need it.
pub(super) async fn merged<'a, L, T, F>(
    lists: &'a [L],
    after: Option<T>,
    limit: usize,
    page: impl Fn(&'a L, Option<T>, usize) -> F,
) -> Result<Vec<T>, StoreError>
where
    T: Ord + Clone,
    F: Future<Output = Result<Vec<T>, StoreError>>,
{
    let share = if lists.len() > 1 { (2 * limit).div_ceil(lists.len()) } else { limit };
    let mut merged = Vec::new();
    // The lists that may have more for the result, each with the last entry that was read.
    let mut open: Vec<_> = lists.iter().map(|list| (list, after.clone())).collect();
    while !open.is_empty() {
        // Not lazy, because the compiler cannot prove that a stream of such closures is `Send`.
        let pages: Vec<_> =
            open.iter().map(|(list, last)| page(list, last.clone(), share)).collect();
        let pages: Vec<_> = stream::iter(pages).buffered(AT_ONCE).try_collect().await?;
        open = open
            .into_iter()
            .zip(&pages)
            .filter(|(_, page)| page.len() >= share)
            .map(|((list, _), page)| (list, page.last().cloned()))
            .collect();
        merged.extend(pages.into_iter().flatten());
        merged.sort();
        merged.truncate(limit);
        // A list that was read beyond the end of the result has no more for it.
        open.retain(|(_, last)| merged.len() < limit || last.as_ref() < merged.last());
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::merged;

    /// Reads lists of numbers, and returns the result with the number of pages and of entries read.
    async fn read(
        lists: &[Vec<u32>],
        after: Option<u32>,
        limit: usize,
    ) -> (Vec<u32>, usize, usize) {
        let (pages, entries) = (Cell::new(0), Cell::new(0));
        let merged = merged(lists, after, limit, |list, after, limit| {
            let rest = list.iter().copied().filter(|entry| Some(*entry) > after);
            let page: Vec<_> = rest.take(limit).collect();
            pages.set(pages.get() + 1);
            entries.set(entries.get() + page.len());
            ready(Ok(page))
        });
        (merged.await.unwrap(), pages.get(), entries.get())
    }

    /// Deals the numbers below `count` to lists in turn.
    fn dealt(count: u32, lists: u32) -> Vec<Vec<u32>> {
        (0..lists).map(|list| (list..count).step_by(lists as usize).collect()).collect()
    }

    #[tokio::test]
    async fn each_list_is_asked_for_twice_its_share_however_long_it_is() {
        for count in [1000, 100_000] {
            let (merged, pages, entries) = read(&dealt(count, 16), None, 256).await;
            assert_eq!(merged, (0..256).collect::<Vec<_>>());
            assert_eq!((pages, entries), (16, 16 * 32));
        }
    }

    #[tokio::test]
    async fn a_list_that_has_the_whole_result_is_read_on() {
        let mut lists = vec![Vec::new(); 16];
        lists[7] = (0..1000).collect();
        lists[8] = vec![2000];
        let (merged, ..) = read(&lists, None, 256).await;
        assert_eq!(merged, (0..256).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn pages_follow_each_other_without_a_gap() {
        let mut lists = dealt(500, 5);
        lists.push((500..600).collect());
        for limit in [1, 7, 100, 599, 600, 601] {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let (page, ..) = read(&lists, after, limit).await;
                let Some(last) = page.last() else { break };
                after = Some(*last);
                all.extend(page);
            }
            assert_eq!(all, (0..600).collect::<Vec<_>>(), "{limit}");
        }
    }
}
