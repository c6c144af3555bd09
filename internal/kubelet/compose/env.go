// SPDX-License-Identifier: Apache-2.0

package compose

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// EnvSources is what an environment is made from.
type EnvSources struct {
	Objects Objects
	// Services are those that the pod may see: of its namespace if service
	// links are on, and the one called kubernetes in any case.
	Services []*corev1.Service
	// File reads a key of an env file in a volume of the pod.
	File  func(ref *corev1.FileKeySelector) (value string, found bool, err error)
	Facts Facts
}

// Variable is one variable of an environment.
type Variable struct{ Name, Value string }

// Env returns the environment of a container, in the order of its
// specification, the variables of services after it.
func Env(pod *corev1.Pod, c *corev1.Container, src EnvSources) ([]Variable, error) {
	services := ServiceEnv(src.Services)
	values := map[string]string{}
	var order []string
	set := func(name, value string) {
		if _, ok := values[name]; !ok {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, from := range c.EnvFrom {
		if err := envFrom(pod, from, src.Objects, set); err != nil {
			return nil, err
		}
	}
	lookup := func(name string) (string, bool) {
		if value, ok := values[name]; ok {
			return value, true
		}
		value, ok := services[name]
		return value, ok
	}
	for _, e := range c.Env {
		value := e.Value
		if value != "" {
			value = Expand(value, lookup)
		} else if e.ValueFrom != nil {
			got, found, err := envValue(pod, c, e.ValueFrom, src)
			if err != nil {
				return nil, err
			}
			if !found {
				continue
			}
			value = got
		}
		set(e.Name, value)
	}
	env := make([]Variable, 0, len(order)+len(services))
	for _, name := range order {
		env = append(env, Variable{name, values[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if _, ok := values[name]; !ok {
			env = append(env, Variable{name, services[name]})
		}
	}
	return env, nil
}

func envFrom(pod *corev1.Pod, from corev1.EnvFromSource, objects Objects, set func(name, value string)) error {
	switch {
	case from.ConfigMapRef != nil:
		cm, err := objects.ConfigMap(pod.Namespace, from.ConfigMapRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(from.ConfigMapRef.Optional) {
				return nil
			}
			return &ConfigError{err.Error()}
		}
		for _, k := range slices.Sorted(maps.Keys(cm.Data)) {
			set(from.Prefix+k, cm.Data[k])
		}
	case from.SecretRef != nil:
		secret, err := objects.Secret(pod.Namespace, from.SecretRef.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(from.SecretRef.Optional) {
				return nil
			}
			return &ConfigError{err.Error()}
		}
		for _, k := range slices.Sorted(maps.Keys(secret.Data)) {
			set(from.Prefix+k, string(secret.Data[k]))
		}
	}
	return nil
}

// envValue resolves a reference; found is false where an optional one is absent.
func envValue(pod *corev1.Pod, c *corev1.Container, from *corev1.EnvVarSource, src EnvSources) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err := Field(pod, from.FieldRef.FieldPath, src.Facts)
		if err != nil {
			return "", false, &ConfigError{err.Error()}
		}
		return value, true, nil
	case from.ResourceFieldRef != nil:
		of := c
		if name := from.ResourceFieldRef.ContainerName; name != "" && name != c.Name {
			if of = containerNamed(pod, name); of == nil {
				return "", false, &ConfigError{fmt.Sprintf("container %s not found", name)}
			}
		}
		value, err := ResourceOf(from.ResourceFieldRef, pod, of, src.Facts)
		if err != nil {
			return "", false, &ConfigError{err.Error()}
		}
		return value, true, nil
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		cm, err := src.Objects.ConfigMap(pod.Namespace, ref.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(ref.Optional) {
				return "", false, nil
			}
			return "", false, &ConfigError{err.Error()}
		}
		if value, ok := cm.Data[ref.Key]; ok {
			return value, true, nil
		}
		if isTrue(ref.Optional) {
			return "", false, nil
		}
		return "", false, &ConfigError{fmt.Sprintf("couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)}
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := src.Objects.Secret(pod.Namespace, ref.Name)
		if err != nil {
			if apierrors.IsNotFound(err) && isTrue(ref.Optional) {
				return "", false, nil
			}
			return "", false, &ConfigError{err.Error()}
		}
		if value, ok := secret.Data[ref.Key]; ok {
			return string(value), true, nil
		}
		if isTrue(ref.Optional) {
			return "", false, nil
		}
		return "", false, &ConfigError{fmt.Sprintf("couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)}
	case from.FileKeyRef != nil && src.File != nil:
		value, found, err := src.File(from.FileKeyRef)
		if err != nil {
			return "", false, &ConfigError{err.Error()}
		}
		if !found && !isTrue(from.FileKeyRef.Optional) {
			return "", false, &ConfigError{fmt.Sprintf("environment variable key %q not found in file %q", from.FileKeyRef.Key, from.FileKeyRef.Path)}
		}
		return value, found, nil
	}
	return "", false, nil
}

func isTrue(b *bool) bool { return b != nil && *b }

// containerNamed finds a container of the pod, init containers included.
func containerNamed(pod *corev1.Pod, name string) *corev1.Container {
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == name {
				return &list[i]
			}
		}
	}
	return nil
}

// ServiceEnv returns the variables by which containers find services.
func ServiceEnv(services []*corev1.Service) map[string]string {
	env := map[string]string{}
	for _, s := range services {
		ip := s.Spec.ClusterIP
		if ip == "" || ip == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		prefix := envName(s.Name)
		env[prefix+"_SERVICE_HOST"] = ip
		env[prefix+"_SERVICE_PORT"] = strconv.Itoa(int(s.Spec.Ports[0].Port))
		for i, p := range s.Spec.Ports {
			if p.Name != "" {
				env[prefix+"_SERVICE_PORT_"+envName(p.Name)] = strconv.Itoa(int(p.Port))
			}
			protocol := string(cmp.Or(p.Protocol, corev1.ProtocolTCP))
			port := strconv.Itoa(int(p.Port))
			url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, port)
			if i == 0 {
				env[prefix+"_PORT"] = url
			}
			link := prefix + "_PORT_" + port + "_" + strings.ToUpper(protocol)
			env[link] = url
			env[link+"_PROTO"] = strings.ToLower(protocol)
			env[link+"_PORT"] = port
			env[link+"_ADDR"] = ip
		}
	}
	return env
}

func envName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
