//! One file a crate: how it is set up, and what a call of it is.

pub mod aliri;
pub mod aws;
pub mod azure;
pub mod floor;
pub mod gcloud_auth;
pub mod gcp_auth;
pub mod google_cloud_auth;
pub mod kube;
pub mod object_store;
pub mod octocrab;
pub mod ours;
pub mod reqsign;
pub mod yup_oauth2;
