//! RSA keys that sign tokens, and tokens that they signed.

use std::{process::Command, sync::LazyLock};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};

/// The keys of the two clouds, made anew for each run.
pub static GOOGLE: LazyLock<Key> = LazyLock::new(Key::new);
pub static AWS: LazyLock<Key> = LazyLock::new(Key::new);

pub struct Key(RsaKeyPair);

impl Key {
    fn new() -> Self {
        let mut openssl = Command::new("openssl");
        openssl.args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]);
        let made = openssl.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let key = PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).unwrap();
        Self(RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap())
    }

    /// Returns a signed JWT.
    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let head = part(&json!({ "alg": "RS256", "typ": "JWT", "kid": "one" }));
        let signed = format!("{head}.{}", part(claims));
        let mut signature = vec![0; self.0.public().modulus_len()];
        let random = SystemRandom::new();
        self.0.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the claims of a JWT for the audience that this key signed and that has not ended.
    pub fn verify(&self, token: &str, issuer: &str, audience: &str) -> Result<Value, String> {
        let (signed, signature) = token.rsplit_once('.').ok_or("no JWT")?;
        let (head, claims) = signed.split_once('.').ok_or("no JWT")?;
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|e| e.to_string());
        let json = |part: &str| -> Result<Value, String> {
            serde_json::from_slice(&decode(part)?).map_err(|error| error.to_string())
        };
        if json(head)?["alg"] != "RS256" {
            return Err("another algorithm".into());
        }
        let public: &rsa::PublicKey = self.0.public();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| "the signature is wrong")?;
        let claims = json(claims)?;
        if claims["iss"] != issuer || claims["aud"] != audience {
            return Err(format!("{claims} is not by {issuer} for {audience}"));
        }
        if claims["exp"].as_i64().is_none_or(|end| end <= Utc::now().timestamp()) {
            return Err(format!("{claims} has ended"));
        }
        Ok(claims)
    }
}
