//! The execution log: what a master must not forget.

/// Why bytes are no execution log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It begins with something else.
    #[error("this is not an execution log of shoal")]
    Foreign,
    /// Another version of shoal wrote it.
    #[error("the execution log has version {0}, this program reads version 1")]
    Version(u8),
}
