// SPDX-License-Identifier: Apache-2.0

// Package compose turns a pod's specification into what a container is given:
// its environment, its mounts, its name resolution and its hosts file. It reads
// ConfigMaps, Secrets and Services through the interfaces below and, but for
// sub-paths and the hosts file, writes nothing.
package compose

import (
	corev1 "k8s.io/api/core/v1"
)

// Objects are the objects that environments refer to. Errors are NotFound of
// apimachinery where an object is absent.
type Objects interface {
	ConfigMap(namespace, name string) (*corev1.ConfigMap, error)
	Secret(namespace, name string) (*corev1.Secret, error)
}

// ConfigError says that a container cannot be made because of its
// specification or of something it refers to; the container then waits with
// reason CreateContainerConfigError.
type ConfigError struct{ Message string }

func (e *ConfigError) Error() string { return e.Message }
