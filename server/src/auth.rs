//! Who a caller is, as the server knows it.
