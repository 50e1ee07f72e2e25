# Keys, certificates, tokens and kubeconfigs of one cluster, all in $DIR.

APISERVER=https://127.0.0.1:6443

# Users of the tests: name, groups. Their token is NAME-token, their rights are in manifests/rights.yaml.
users() {
  cat <<'TABLE'
admin system:masters
tms tms-servers
rival tms-rivals
bench tms-benches
system:kube-controller-manager
system:kube-scheduler
system:kube-proxy
system:coredns
system:node:node-0 system:nodes
system:serviceaccount:kube-system:metrics-server system:serviceaccounts
system:serviceaccount:monitoring:prometheus-operator system:serviceaccounts
system:serviceaccount:keda:keda-operator system:serviceaccounts
TABLE
}

make_identities() {
  mkdir -p "$DIR/pki"
  make_certificates
  local name group file
  while read -r name group; do
    printf '%s-token,%s,%s,"%s"\n' "$name" "$name" "$name" "$group"
    file=$(kubeconfig_of "$name")
    write_kubeconfig "$name-token" >"$file"
  done < <(users) >"$DIR/pki/tokens.csv"
}

kubeconfig_of() { local name=${1#system:} && printf '%s' "$DIR/${name//:/-}.kubeconfig"; }

write_kubeconfig() {
  cat <<YAML
apiVersion: v1
kind: Config
clusters: [{name: tms-test, cluster: {server: "$APISERVER", certificate-authority-data: $(base64 -w0 "$DIR/pki/ca.crt")}}]
users: [{name: user, user: {token: "$1"}}]
contexts: [{name: tms-test, context: {cluster: tms-test, user: user}}]
current-context: tms-test
YAML
}

# The apiserver's own generated certificate is its own CA, which webpki refuses, hence these.
make_certificates() {
  local pki=$DIR/pki
  make_authority ca kubernetes-ca
  make_authority front-proxy-ca front-proxy-ca
  sign ca apiserver kube-apiserver "extendedKeyUsage=serverAuth
subjectAltName=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:10.200.0.1,IP:10.96.0.1"
  sign front-proxy-ca front-proxy front-proxy-client extendedKeyUsage=clientAuth
  sign ca keda keda-operator "extendedKeyUsage=serverAuth,clientAuth
subjectAltName=DNS:keda-operator.keda.svc,DNS:keda-metrics-apiserver.keda.svc"
  # KEDA wants a folder of its own with these names.
  mkdir "$pki/keda"
  cp "$pki/ca.crt" "$pki/keda/ca.crt" && cp "$pki/keda.crt" "$pki/keda/tls.crt" && cp "$pki/keda.key" "$pki/keda/tls.key"
  new_key "$pki/service-accounts.key"
  openssl pkey -in "$pki/service-accounts.key" -pubout -out "$pki/service-accounts.pub"
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# make_authority FILE NAME
make_authority() {
  new_key "$DIR/pki/$1.key"
  openssl req -x509 -new -key "$DIR/pki/$1.key" -subj "/CN=$2" -days 30 -out "$DIR/pki/$1.crt" \
    -addext keyUsage=critical,keyCertSign,cRLSign
}

# sign AUTHORITY FILE NAME EXTENSIONS
sign() {
  local pki=$DIR/pki
  new_key "$pki/$2.key"
  openssl req -new -key "$pki/$2.key" -subj "/CN=$3" |
    openssl x509 -req -CA "$pki/$1.crt" -CAkey "$pki/$1.key" -days 30 -out "$pki/$2.crt" \
      -extfile <(printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n%s\n' "$4") 2>/dev/null
}
