//! Storms: issuers that fail, routes that refuse, lives that are short (T37 to T48).
