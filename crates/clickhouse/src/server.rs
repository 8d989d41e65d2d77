//! Requests to one server, from callers that block.

use crate::{Address, problem::Problem, schema::Table};
use clickhouse::{Client, Row, RowOwned, RowRead, RowWrite};
use ethogram_store::StoreError;
use std::{future::Future, ops::ControlFlow, path::PathBuf, time::Duration};
use tokio::runtime::{self, Runtime};

/// A request that has no answer by then has failed: the server hangs or the network
/// swallows packets.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(300);

/// Rows that are held while a visitor looks at them.
const ROWS_AT_A_TIME: usize = 4096;

/// Settings of every request, by names that all servers from 18.16 on know.
const SETTINGS: [(&str, &str); 5] = [
    // 16 MiB: lists of containers are longer than the default of 256 KiB.
    ("max_query_size", "16777216"),
    // An insert that returns has reached its shards.
    ("insert_distributed_sync", "1"),
    // Joining makes a row that is inserted twice harmless; the server's own check would
    // also refuse one that comes back after it was removed.
    ("insert_deduplicate", "0"),
    // Of several replicas the same one is written and read as long as it is there, so that
    // what was applied is seen.
    ("load_balancing", "in_order"),
    // An error is an error's status, never the end of an answer that began well.
    ("wait_end_of_query", "1"),
];

/// A server, with what is needed to ask it.
pub(crate) struct Server {
    client: Client,
    /// The same without a database, which may not exist yet.
    bare: Client,
    address: Address,
    endpoint: String,
    runtime: Option<Runtime>,
}

impl Server {
    pub(crate) fn new(address: &Address) -> Result<Self, StoreError> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| StoreError::Io {
                doing: "prepare requests to",
                path: PathBuf::from(address.to_string()),
                source,
            })?;
        let mut bare = Client::default()
            .with_url(address.http_url())
            .with_user(address.user())
            .with_password(address.password())
            // Servers before 22 have no format that names types.
            .with_validation(false);
        for (name, value) in SETTINGS {
            bare = bare.with_setting(name, value);
        }
        Ok(Self {
            client: bare.clone().with_database(address.database()),
            bare,
            address: address.clone(),
            endpoint: address.to_string(),
            runtime: Some(runtime),
        })
    }

    /// The address, for messages.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn database(&self) -> &str {
        self.address.database()
    }

    pub(crate) fn cluster(&self) -> Option<&str> {
        self.address.cluster()
    }

    /// Runs a statement that names its database.
    pub(crate) fn execute_anywhere(&self, sql: &str) -> Result<(), Problem> {
        self.wait_for(self.bare.query_raw(sql).execute())
    }

    /// All rows of a query whose answer is known to be small.
    pub(crate) fn select<T>(&self, sql: &str) -> Result<Vec<T>, Problem>
    where
        T: RowOwned + RowRead,
    {
        self.wait_for(self.client.query_raw(sql).fetch_all())
    }

    /// Hands every row of a query to `visit` until it breaks off. The visitor may ask this or
    /// another server: it is not called while a request is driven.
    pub(crate) fn visit<T>(
        &self,
        sql: &str,
        mut visit: impl FnMut(T) -> Result<ControlFlow<()>, Problem>,
    ) -> Result<ControlFlow<()>, Problem>
    where
        T: RowOwned + RowRead,
    {
        let mut cursor = self.client.query_raw(sql).fetch::<T>()?;
        loop {
            let rows = self.wait_for(async {
                let mut rows = Vec::new();
                while rows.len() < ROWS_AT_A_TIME
                    && let Some(row) = cursor.next().await?
                {
                    rows.push(row);
                }
                Ok(rows)
            })?;
            let is_last = rows.len() < ROWS_AT_A_TIME;
            for row in rows {
                if visit(row)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if is_last {
                return Ok(ControlFlow::Continue(()));
            }
        }
    }

    /// Appends rows to a table, on all shards they belong to.
    pub(crate) fn insert<T>(&self, table: &Table, rows: &[T]) -> Result<(), Problem>
    where
        T: Row + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        if rows.is_empty() {
            return Ok(());
        }
        self.wait_for(async {
            let mut insert = self.client.insert::<T>(table.name).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        })
    }

    /// Drives a request on the caller's thread.
    fn wait_for<T>(
        &self,
        request: impl Future<Output = clickhouse::error::Result<T>>,
    ) -> Result<T, Problem> {
        let runtime = self
            .runtime
            .as_ref()
            .expect("only dropping the server takes it");
        let answer =
            runtime.block_on(async { tokio::time::timeout(REQUEST_TIME_MAX, request).await });
        match answer {
            Ok(answer) => answer.map_err(Problem::from),
            Err(_) => Err(Problem::Unreachable(format!(
                "no answer within {} s",
                REQUEST_TIME_MAX.as_secs()
            ))),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropping a runtime waits for it, which async code must not do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
