//! Bodies of common vendors, in the vendor's form and with made-up data. A vendor without a sample
//! has a signed delivery in the tests.

/// A vendor's body.
pub(super) struct Sample {
    pub vendor: &'static str,
    pub body: &'static [u8],
}

macro_rules! samples {
    ($($vendor:literal: $file:literal,)*) => {
        &[$(Sample {
            vendor: $vendor,
            body: include_bytes!(concat!("../../events/vendors/", $file)),
        },)*]
    };
}

const SAMPLES: &[Sample] = samples! {
    "stripe": "stripe.json",
    "adyen": "adyen.json",
    "github": "github.json",
    "shopify": "shopify.json",
    "standard-webhooks": "standard-webhooks.json",
    "slack": "slack.json",
    "paypal": "paypal.json",
    "twilio": "twilio.form",
    "square": "square.json",
    "paddle": "paddle.json",
    "razorpay": "razorpay.json",
    "braintree": "braintree.xml",
    "mollie": "mollie.json",
    "gocardless": "gocardless.json",
    "klarna": "klarna.json",
};

/// Returns the sample body of a vendor.
pub(super) fn sample(vendor: &str) -> Option<&'static [u8]> {
    SAMPLES.iter().find(|sample| sample.vendor == vendor).map(|sample| sample.body)
}

#[cfg(test)]
mod tests {
    use super::{SAMPLES, sample};
    use crate::source::vendor_names;

    #[test]
    fn every_sample_is_of_a_vendor_and_found_by_its_name() {
        let sampled = vendor_names().into_iter().filter(|name| sample(name).is_some());
        assert_eq!(sampled.count(), SAMPLES.len());
    }
}
