use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use skep_protocol::net::files;
use skep_protocol::net::identity::ServerRecord;
use skep_protocol::net::keys::SigningKey;
use skep_protocol::net::roster::{Head, Listed, Prover, SignedRoster};
use skep_protocol::net::tls::Serial;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use super::*;

/// An authority that is apart, and what it can sign.
struct Authority {
    key: SigningKey,
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

struct Subject(PublicKey);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// Named, with a serial number, good for a day around now.
fn params(name: &str) -> CertificateParams {
    let (mut params, now, day) =
        (CertificateParams::default(), SystemTime::now(), Duration::from_secs(86_400));
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&Serial::generate().unwrap().0));
    (params.not_before, params.not_after) = ((now - day).into(), (now + day).into());
    params
}

impl Authority {
    fn new() -> Self {
        let key = SigningKey::generate().unwrap();
        let pkcs8 = PrivatePkcs8KeyDer::from(key.pkcs8());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519).unwrap();
        let mut params = params("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&pair).unwrap().der().to_vec();
        Authority { key, issuer: Issuer::new(params, pair), certificate }
    }

    fn certify(&self, client: u64, key: &SigningKey) -> Vec<u8> {
        let mut params = params(&ClientId(client).to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.signed_by(&Subject(key.public_key()), &self.issuer).unwrap().der().to_vec()
    }

    fn list(&self, sequence: u64, members: &[(u64, &SigningKey)]) -> Prover {
        let listed = |&(client, key): &(u64, &SigningKey)| Listed {
            client: ClientId(client),
            public_key: key.public_key(),
            certificate: self.certify(client, key).into(),
        };
        let members: Vec<_> = members.iter().map(listed).collect();
        let signed = Head::of(&members, sequence, 0).sign(&self.key);
        let authority = self.certificate.clone().into();
        Prover::new(SignedRoster { authority, signed, server: None, members, removed: vec![] })
    }

    /// Client 0, enrolled in a directory; it knows of a roster with this number, or of none.
    fn enrol(&self, sequence: Option<u64>) -> (tempfile::TempDir, Certified) {
        let (state, key) = (tempfile::tempdir().unwrap(), SigningKey::generate().unwrap());
        let server = ServerRecord {
            client: ClientId(0),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            plan_key: key.public_key(),
            roster: sequence.map(|sequence| RosterPin { sequence, root: None }),
        };
        let write = |name: &str, contents: &[u8]| files::create(&state.path().join(name), contents).unwrap();
        write("identity.key", key.pkcs8());
        write("identity.crt", &self.certify(0, &key));
        write("ca.crt", &self.certificate);
        write("server.json", &serde_json::to_vec(&server).unwrap());
        let pass = Pass::new(Identity::load(state.path()).unwrap()).unwrap();
        let certified = Certified::new(pass, Some(state.path().to_owned())).unwrap();
        (state, certified)
    }
}

fn keys<const N: usize>() -> [SigningKey; N] {
    std::array::from_fn(|_| SigningKey::generate().unwrap())
}

/// What the server shows of a client with this certificate.
fn shown(prover: &Prover, client: u64, certificate: &[u8]) -> Vec<u8> {
    prover.membership(ClientId(client), certificate).unwrap().to_bytes()
}

fn judge(certified: &Certified, peers: &[(u64, &[u8])]) -> Result<Vec<IdentityKey>, Decline> {
    let peers: Vec<_> = peers.iter().map(|&(client, shown)| (ClientId(client), shown)).collect();
    certified.identities_of(&peers)
}

#[test]
fn members_of_one_roster_are_believed_and_the_roster_is_remembered() {
    let (authority, [one, two]) = (Authority::new(), keys());
    let roster = authority.list(3, &[(1, &one), (2, &two)]);
    let (state, certified) = authority.enrol(Some(2));
    let (first, second) =
        (shown(&roster, 1, &authority.certify(1, &one)), shown(&roster, 2, &authority.certify(2, &two)));
    let believed = judge(&certified, &[(1, &first), (2, &second)]).unwrap();
    assert_eq!(believed, [one.public_key().0, two.public_key().0]);
    let head = roster.roster().signed.head;
    let seen = Identity::load(state.path()).unwrap().roster();
    assert_eq!(seen, Some(RosterPin { sequence: 3, root: Some(head.root) }));
}

#[test]
fn a_server_cannot_slip_in_a_member_that_the_authority_has_not_listed() {
    let (authority, [one, sybil]) = (Authority::new(), keys());
    let roster = authority.list(3, &[(1, &one), (2, &one)]);
    let honest = shown(&roster, 1, &authority.certify(1, &one));
    // A key that the authority did certify once, as client 2, and has replaced since.
    let former = authority.certify(2, &sybil);
    let (_state, certified) = authority.enrol(Some(2));
    let forger = Authority::new();
    let own_roster = forger.list(9, &[(1, &one), (2, &sybil)]);
    for lie in [
        former.clone(),
        shown(&roster, 2, &former),
        shown(&roster, 1, &former),
        shown(&own_roster, 2, &former),
    ] {
        let refused = judge(&certified, &[(1, &honest), (2, &lie)]).unwrap_err();
        assert!(matches!(refused, Decline::UnlistedPeer | Decline::StaleRoster), "{refused}");
        assert_eq!(judge(&certified, &[(2, &lie)]), Err(Decline::UnlistedPeer));
    }
    assert_eq!(judge(&certified, &[(1, &honest)]), Ok(vec![one.public_key().0]));
    // Whoever knows of no roster believes the certificate: there the server could be the authority.
    let (_state, credulous) = authority.enrol(None);
    assert_eq!(judge(&credulous, &[(2, &former)]), Ok(vec![sybil.public_key().0]));
}

#[test]
fn an_older_roster_and_two_of_one_number_are_refused() {
    let (authority, [one, sybil]) = (Authority::new(), keys());
    let (older, newer) = (authority.list(2, &[(1, &sybil)]), authority.list(3, &[(1, &one)]));
    let (genuine, former) = (authority.certify(1, &one), authority.certify(1, &sybil));
    let (state, certified) = authority.enrol(Some(1));
    let (before, after) = (shown(&older, 1, &former), shown(&newer, 1, &genuine));
    assert!(judge(&certified, &[(1, &before)]).is_ok(), "it was good while there was no newer one");
    assert!(judge(&certified, &[(1, &after)]).is_ok());
    assert_eq!(judge(&certified, &[(1, &before)]), Err(Decline::StaleRoster));
    // Not after a restart either.
    let pass = Pass::new(Identity::load(state.path()).unwrap()).unwrap();
    let restarted = Certified::new(pass, Some(state.path().to_owned())).unwrap();
    assert_eq!(judge(&restarted, &[(1, &before)]), Err(Decline::StaleRoster));
    let twin = authority.list(3, &[(1, &sybil)]);
    assert_eq!(judge(&restarted, &[(1, &shown(&twin, 1, &former))]), Err(Decline::StaleRoster));
    // Not mixed with others of a newer one either.
    let fourth = authority.list(4, &[(1, &one), (2, &one)]);
    let mixed = [(1, shown(&newer, 1, &genuine)), (2, shown(&fourth, 2, &authority.certify(2, &one)))];
    let mixed: Vec<_> = mixed.iter().map(|(client, shown)| (*client, shown.as_slice())).collect();
    assert_eq!(judge(&restarted, &mixed), Err(Decline::StaleRoster));
    assert!(judge(&restarted, &[(1, &after)]).is_ok());
}
