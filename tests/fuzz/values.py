"""What is fed in: anything that JSON can say, and texts that look like what is expected."""

from typing import Any

from hypothesis import strategies as st

Object = dict[str, Any]
REPOSITORIES = ("registry.example.com/team/app", "quay.io/a/b", "localhost/x", "docker.io/library/busybox", "[::1]:5000/x")
DIGEST = "sha256:" + "a" * 64
PIECES = [
    "registry.example.com", "*.example.com", "quay.io", "localhost", "docker.io", "index.docker.io", "[::1]", "a", "A",
    "app", "team",
    "library", ":", ":5000", "/", "//", "@", DIGEST, "@sha256:", ".", "..", "-", "_", "__", "*", "*.", " ", "\n", "\u0000",
    "\ud800", "é",
    "٣", "²", "\U0001f600", "x" * 130, "a/" * 130, "1.2.3.4", "%", "?", "#", "https://", "latest", "\\", '"', "'", "{}", "[", "]",
]  # fmt: skip
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=7).map("".join), st.text(st.characters(), max_size=40))
references = st.one_of(
    texts,
    st.builds(
        "{}{}{}".format, st.sampled_from(REPOSITORIES), st.sampled_from(["", ":v1", ":latest"]), st.sampled_from(["", f"@{DIGEST}"])
    ),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


def perhaps(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What belongs there, and one time in eight anything else."""
    return st.integers(0, 7).flatmap(lambda chance: json_values if chance == 0 else value)


def mapping(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Object]:
    """A mapping in which each field may be missing, or be anything; `_` in a name ends it."""
    return st.fixed_dictionaries({}, optional={name.rstrip("_"): perhaps(value) for name, value in fields.items()})


def lists(value: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    """A short list, each item of which may be anything."""
    return st.lists(perhaps(value), max_size=most)


names = st.one_of(st.sampled_from(["a", "b", "cluster", ""]), texts)
scopes = st.one_of(
    st.sampled_from([*REPOSITORIES, "registry.example.com", "*.example.com", "quay.io/a", "mirror.corp:5000/up"]), texts
)
metadata = mapping(
    name=names, namespace=names, resourceVersion=st.sampled_from(["1", "2", "", "²", "9" * 5000]), generation=st.integers(0, 3)
)
entries = lists(
    mapping(
        source=scopes,
        mirrors=lists(scopes, 4),
        mirrorSourcePolicy=st.sampled_from(["NeverContactSource", "AllowContactingSource", "x"]),
    )
)
image_config = mapping(
    registrySources=mapping(insecureRegistries=lists(scopes), blockedRegistries=lists(scopes), allowedRegistries=lists(scopes)),
    allowedRegistriesForImport=lists(mapping(domainName=scopes, insecure=st.booleans())),
)
rule_objects = st.lists(
    perhaps(
        st.one_of(
            *(
                st.fixed_dictionaries(
                    {"kind": st.just(kind), "metadata": perhaps(metadata), "spec": perhaps(mapping(**{field: entries}))}
                )
                for kind, field in (
                    ("ImageContentSourcePolicy", "repositoryDigestMirrors"),
                    ("ImageDigestMirrorSet", "imageDigestMirrors"),
                    ("ImageTagMirrorSet", "imageTagMirrors"),
                )
            ),
            st.fixed_dictionaries(
                {"kind": st.just("Image"), "metadata": st.just({"name": "cluster"}), "spec": perhaps(image_config)}
            ),
            st.fixed_dictionaries({"kind": json_values}),
        )
    ),
    max_size=5,
)
"""Mirror sets and Image configs with anything in every place."""

parts = st.one_of(
    texts,
    references,
    st.sampled_from(
        [
            "connection refused", "x509: certificate", "Internal error occurred: ", ": ", ", ", "[", "]", "not found", "\n",
            "you may not have access to the container image ", "registry a blocked",
            "dockerimage.image.openshift.io \"a\" not found",
            '"', '\\"', "errors:\n", "unknown: ", "denied", 'error parsing HTTP 403 response body: "',
            "unable to ", "dial tcp [::1]:443", "the repository ", 'Get "https://a/v2/": ', "HTTP status: 503",
        ]
    ),
)  # fmt: skip
messages = st.lists(parts, max_size=12).map("".join)
"""Failure messages, as the importer, a registry or a client that may write a status builds them."""

image_streams = mapping(
    metadata=metadata,
    spec=mapping(
        dockerImageRepository=references,
        tags=lists(
            mapping(
                name=names,
                from_=mapping(kind=st.sampled_from(["DockerImage", "ImageStreamTag"]), name=references, namespace=names),
                generation=st.integers(0, 3),
                reference=st.booleans(),
                referencePolicy=mapping(type=st.just("Local")),
                importPolicy=mapping(insecure=st.booleans(), scheduled=st.booleans()),
            )
        ),
    ),
    status=mapping(
        dockerImageRepository=references,
        tags=lists(
            mapping(
                tag=names,
                items=lists(mapping(dockerImageReference=references, image=st.just(DIGEST), generation=st.integers(0, 3))),
                conditions=lists(
                    mapping(
                        type=st.just("ImportSuccess"),
                        status=st.just("False"),
                        reason=names,
                        message=messages,
                        generation=st.integers(0, 3),
                        lastTransitionTime=texts,
                    )
                ),
            )
        ),
    ),
)
