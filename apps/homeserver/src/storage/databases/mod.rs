//! Families of tables, one file each, grouped by the database they live in.

pub mod main;
