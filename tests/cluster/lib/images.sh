# Images without Docker: OCI archives, written by the scripts of images/ from files of this machine and of PyPI.

# Every script runs by the Python that the images hold.
PYTHON=/usr/bin/python3.11

# make_images FOLDER: the archives pause.tar, triton.tar, client.tar and the server's base, a folder.
make_images() {
  "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    --requirement "$HERE/images/requirements.txt" --dest "$1/wheels"
  "$PYTHON" -B "$HERE/images/make.py" "$1/wheels" "$1"
  rm -r "$1/wheels"
}

# Prometheus and its reloader, as its operator runs them in pods: the bare programs.
make_pipeline_images() {
  local version
  version=$(version_of prometheus-operator)
  make_program_image "$1" prometheus "$(prometheus_version)" "$(part_folder prometheus)/prometheus"
  make_program_image "$1" prometheus-config-reloader "$version" "$(part_folder prometheus-operator)/prometheus-config-reloader"
}
make_program_image() {
  "$PYTHON" -B "$HERE/images/program.py" "$4" "docker.io/local/$2:$3" "$1/$2.tar"
}

# The module v0.MNN.P is Prometheus vM.NN.P.
prometheus_version() { version_of prometheus | sed -E 's/^v0\.([0-9])0?([0-9]+)\./v\1.\2./'; }

# image NAME: makes an image that changes with TMS, and gives it to the node.
image() {
  [[ $1 == tms-server ]] || die "unknown image $1" "images: tms-server"
  require_cluster
  has_node || die "profile $PROFILE has no node that runs images" "tests/cluster/cluster up --profile node"
  [[ -x $BINARY ]] || die "$BINARY is not a program" "cargo build --package tms-server"
  (
    lock
    make_server_image "$DIR/data/tms-server.tar"
    exec_inside ctr --namespace k8s.io images import --all-platforms "$DIR/data/tms-server.tar"
  ) >&2
  printf '%s\n' "docker.io/local/tms-server:$TAG"
}

make_server_image() {
  "$PYTHON" -B "$HERE/images/server.py" "$HERE/../../Dockerfile" "$(part_folder images)/base" "$BINARY" \
    "docker.io/local/tms-server:$TAG" "$1"
}

# Gives the node its images.
import_images() {
  local folder image folders=("$(part_folder images)" "$DIR/data")
  [[ $PROFILE != pipeline ]] || folders+=("$(part_folder pipeline-images)")
  if [[ -x $BINARY ]]; then make_server_image "$DIR/data/tms-server.tar"; fi
  for folder in "${folders[@]}"; do
    for image in "$folder"/*.tar; do
      [[ ! -e $image ]] || import_image "$image" || return 1
    done
  done
}
import_image() { ctr --namespace k8s.io images import "$1" >>"$DIR/log/images.log" 2>&1; }
