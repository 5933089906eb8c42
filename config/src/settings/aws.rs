//! `[aws]`: as what functions of AWS Lambda's contract, and clients of its API, know this cluster.

use super::Error;
use super::error::require;
use super::field::section;

section! {
    /// As what functions of AWS Lambda's contract, and clients of its API, know this cluster.
    pub struct AwsSettings {
        /// The account in the ARNs of functions; 12 digits.
        pub account_id: String = "000000000000".to_owned(),
        /// The region in the ARNs of functions, and in the environment of those of the `lambda` contract.
        pub region: String = "us-east-1".to_owned(),
    }
}

impl AwsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let is_account =
            self.account_id.len() == 12 && self.account_id.bytes().all(|b| b.is_ascii_digit());
        require(
            is_account,
            "aws.account_id",
            format!("{:?}", self.account_id),
            "12 digits, such as 123456789012",
        )?;
        let is_of_regions = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        require(
            !self.region.is_empty() && self.region.bytes().all(is_of_regions),
            "aws.region",
            format!("{:?}", self.region),
            "a region such as eu-central-1",
        )
    }
}
