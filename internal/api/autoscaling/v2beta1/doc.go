// SPDX-License-Identifier: Apache-2.0

// Package v2beta1 has the kind of autoscaling/v2beta1, which Kubernetes removed
// in 1.25 and its published types lack. Its metrics are those that version v1
// keeps in annotations. Package autoscaling converts it, package legacy serves
// it; nothing else uses it.
//
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=io.k8s.api.autoscaling.v2beta1
package v2beta1
