//! Tables of the main database.
