#!/bin/sh
# `make image`: build the Containerfile with podman or docker, whichever is there. From the environment:
#   BASE        ubi (default): the base image of the Containerfile. debian: a base of Debian packages that is made here with mmdebstrap,
#               built with buildah into an OCI archive, dist/mirrorstream-VERSION-oci.tar, without any image registry (debian.py)
#   IMAGE       its name (default: quay.io/mirrorstream/mirrorstream:VERSION)
#   PLATFORMS   for which architectures, separated by commas (default: this machine's)
#   BASE_IMAGE, PIP_INDEX_URL   where a builder without the internet has them
#   ENGINE      podman or docker; ENGINE_FLAGS is passed on, e.g. "--volume …" with what PIP_CERT names
set -eu
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
: "${IMAGE:=quay.io/mirrorstream/mirrorstream:$version}"
# When and from what: the commit, so that building it again says the same. Changes that are in no commit are said.
revision=$(git describe --always --abbrev=40 --exclude='*' --dirty 2>/dev/null || true)
created=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)

case "${BASE:=ubi}" in
ubi) ;;
debian) IMAGE="$IMAGE" REVISION="$revision" CREATED="$created" exec "${PYTHON:-python3}" -m config.image.debian ;;
*)
    echo "make image: BASE is ubi or debian, not $BASE" >&2
    exit 1
    ;;
esac
: "${ENGINE:=$(command -v podman || command -v docker || true)}"
if [ -z "$ENGINE" ]; then
    echo "make image: needs podman or docker, and there is neither on the PATH (or set ENGINE=…)" >&2
    exit 1
fi
set -- --file Containerfile --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --build-arg "CREATED=$created"
for name in BASE_IMAGE PIP_INDEX_URL PIP_CERT; do
    eval "value=\${$name:-}"
    if [ -n "$value" ]; then set -- "$@" --build-arg "$name=$value"; fi
done
case "$(basename "$ENGINE"):${PLATFORMS:-}" in
*:) set -- build "$@" --tag "$IMAGE" ;;
podman*) set -- build "$@" --platform "$PLATFORMS" --manifest "$IMAGE" ;;
*)
    mkdir -p dist # docker keeps images of several architectures in an archive: skopeo copy --all oci-archive:dist/image.tar …
    set -- buildx build "$@" --platform "$PLATFORMS" --tag "$IMAGE" --output type=oci,dest=dist/image.tar
    ;;
esac
# shellcheck disable=SC2086  # several flags
exec "$ENGINE" "$@" ${ENGINE_FLAGS:-} .
