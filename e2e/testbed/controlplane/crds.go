//go:build crds

// The module that brings OpenShift's custom resource definitions: nothing of it is built, its files are read.
package controlplane

import _ "github.com/openshift/api/config/v1"
