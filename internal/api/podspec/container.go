// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
	"kaji/internal/api/volume"
)

// validateContainer checks what all sorts of containers have.
func (c *checker) validateContainer(container *corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if container.Name == "" {
		errs = append(errs, field.Required(p.Child("name"), ""))
	} else {
		errs = append(errs, rule.Label(container.Name, p.Child("name"))...)
	}
	if container.Image == "" {
		errs = append(errs, field.Required(p.Child("image"), ""))
	}
	errs = append(errs, rule.OneOfRequired(container.TerminationMessagePolicy, p.Child("terminationMessagePolicy"),
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)...)
	errs = append(errs, validatePorts(container.Ports, p.Child("ports"))...)
	errs = append(errs, validateEnv(container.Env, p.Child("env"))...)
	errs = append(errs, validateEnvFrom(container.EnvFrom, p.Child("envFrom"))...)
	errs = append(errs, c.validateMounts(container, p.Child("volumeMounts"))...)
	errs = append(errs, c.validateDevices(container, p.Child("volumeDevices"))...)
	errs = append(errs, validatePullPolicy(container.ImagePullPolicy, p.Child("imagePullPolicy"))...)
	errs = append(errs, c.validateResources(&container.Resources, rule.ContainerResourceName, c.claims, p.Child("resources"))...)
	errs = append(errs, c.validateResizePolicy(container.ResizePolicy, p.Child("resizePolicy"))...)
	return append(errs, validateContainerSecurity(container.SecurityContext, usesHostUsers(c.spec), p.Child("securityContext"))...)
}

func validatePullPolicy(policy corev1.PullPolicy, p *field.Path) field.ErrorList {
	return rule.OneOfRequired(policy, p, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

// validateImageSpace is checked in pods only: templates have had images with
// spaces around them for too long.
func validateImageSpace(container *corev1.Container, p *field.Path) field.ErrorList {
	if container.Image != strings.TrimSpace(container.Image) {
		return field.ErrorList{field.Invalid(p.Child("image"), container.Image, "must not have leading or trailing whitespace")}
	}
	return nil
}

func (c *checker) validateContainers(p *field.Path) field.ErrorList {
	if len(c.spec.Containers) == 0 {
		return field.ErrorList{field.Required(p, "")}
	}
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range c.spec.Containers {
		container, p := &c.spec.Containers[i], p.Index(i)
		errs = append(errs, c.validateContainer(container, p)...)
		if names.Has(container.Name) {
			errs = append(errs, field.Duplicate(p.Child("name"), container.Name))
		}
		names.Insert(container.Name)
		errs = append(errs, c.validateRunning(container, p)...)
		errs = append(errs, validateRestart(container, p)...)
	}
	return append(errs, validateUniqueHostPorts(c.spec.Containers, p)...)
}

// validateRunning checks what only containers that keep running have.
func (c *checker) validateRunning(container *corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if container.Lifecycle != nil {
		errs = append(errs, c.validateLifecycle(container.Lifecycle, p.Child("lifecycle"))...)
	}
	errs = append(errs, validateProbe(container.LivenessProbe, true, p.Child("livenessProbe"))...)
	if probe := container.ReadinessProbe; probe != nil {
		path := p.Child("readinessProbe")
		errs = append(errs, validateProbe(probe, false, path)...)
		if probe.TerminationGracePeriodSeconds != nil {
			errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *probe.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
		}
	}
	return append(errs, validateProbe(container.StartupProbe, true, p.Child("startupProbe"))...)
}

// validateRestart checks when a container is restarted on its own (KEP 5307).
func validateRestart(container *corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case container.RestartPolicy != nil:
		errs = append(errs, rule.OneOf(*container.RestartPolicy, p.Child("restartPolicy"),
			corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)...)
	case len(container.RestartPolicyRules) > 0:
		errs = append(errs, restartPolicyMissing(p))
	}
	rules := p.Child("restartPolicyRules")
	if n := len(container.RestartPolicyRules); n > 20 {
		errs = append(errs, field.TooMany(rules, n, 20))
	}
	for i, r := range container.RestartPolicyRules {
		p := rules.Index(i)
		errs = append(errs, rule.OneOf(r.Action, p.Child("action"),
			corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)...)
		exit := p.Child("exitCodes")
		if r.ExitCodes == nil {
			errs = append(errs, field.Required(exit, "must be specified"))
			continue
		}
		errs = append(errs, rule.OneOf(r.ExitCodes.Operator, exit.Child("operator"),
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)...)
		if n := len(r.ExitCodes.Values); n > 255 {
			errs = append(errs, field.TooMany(exit.Child("values"), n, 255))
		}
	}
	return errs
}

func restartPolicyMissing(p *field.Path) *field.Error {
	return field.Required(p.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
}

func (c *checker) validateInitContainers(p *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i := range c.spec.Containers {
		names.Insert(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		container, index := &c.spec.InitContainers[i], p.Index(i)
		errs = append(errs, c.validateContainer(container, index)...)
		if container.RestartPolicy == nil && len(container.RestartPolicyRules) > 0 {
			errs = append(errs, restartPolicyMissing(index))
		} else {
			errs = append(errs, validateRestart(container, index)...)
		}
		if names.Has(container.Name) {
			errs = append(errs, field.Duplicate(index.Child("name"), container.Name))
		} else if container.Name != "" {
			names.Insert(container.Name)
		}
		errs = append(errs, validateUniqueHostPorts(c.spec.InitContainers[i:i+1], p)...)
		if IsSidecar(container) {
			errs = append(errs, c.validateRunning(container, index)...)
			continue
		}
		forbid := func(set bool, name string) {
			if set {
				errs = append(errs, field.Forbidden(index.Child(name), "may not be set for init containers without restartPolicy=Always"))
			}
		}
		forbid(container.Lifecycle != nil, "lifecycle")
		forbid(container.LivenessProbe != nil, "livenessProbe")
		forbid(container.ReadinessProbe != nil, "readinessProbe")
		forbid(container.StartupProbe != nil, "startupProbe")
		for j, policy := range container.ResizePolicy {
			if policy.RestartPolicy == corev1.RestartContainer && !c.options.RestartOnResizeInit {
				errs = append(errs, field.Invalid(index.Child("resizePolicy").Index(j).Child("restartPolicy"), policy.RestartPolicy,
					"must not be set to 'RestartContainer' for non-sidecar initContainers"))
			}
		}
	}
	return errs
}

func (c *checker) validateEphemeralContainers(p *field.Path) field.ErrorList {
	const message = "cannot be set for an Ephemeral Container"
	var errs field.ErrorList
	targets := sets.New[string]()
	for _, containers := range [][]corev1.Container{c.spec.Containers, c.spec.InitContainers} {
		for i := range containers {
			targets.Insert(containers[i].Name)
		}
	}
	names := targets.Clone()
	for i := range c.spec.EphemeralContainers {
		ephemeral, p := &c.spec.EphemeralContainers[i], p.Index(i)
		container := (*corev1.Container)(&ephemeral.EphemeralContainerCommon)
		errs = append(errs, c.validateContainer(container, p)...)
		errs = append(errs, validateImageSpace(container, p)...)
		if names.Has(ephemeral.Name) {
			errs = append(errs, field.Duplicate(p.Child("name"), ephemeral.Name))
		}
		names.Insert(ephemeral.Name)
		if target := ephemeral.TargetContainerName; target != "" && !targets.Has(target) {
			errs = append(errs, field.NotFound(p.Child("targetContainerName"), target))
		}
		v := reflect.ValueOf(ephemeral.EphemeralContainerCommon)
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; !ephemeralMayHave(name) && !reflect.DeepEqual(v.Field(i).Interface(), reflect.Zero(v.Field(i).Type()).Interface()) {
				errs = append(errs, field.Forbidden(p.Child(volume.LowerFirst(name)), message))
			}
		}
		for i, mount := range ephemeral.VolumeMounts {
			p := p.Child("volumeMounts").Index(i)
			if mount.SubPath != "" {
				errs = append(errs, field.Forbidden(p.Child("subPath"), message))
			}
			if mount.SubPathExpr != "" {
				errs = append(errs, field.Forbidden(p.Child("subPathExpr"), message))
			}
		}
	}
	return errs
}

// ephemeralMayHave lists the fields that ephemeral containers may set, so that
// a field added later is refused until it is looked at.
func ephemeralMayHave(name string) bool {
	switch name {
	case "Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env", "VolumeMounts", "VolumeDevices",
		"TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext", "Stdin", "StdinOnce", "TTY":
		return true
	}
	return false
}

func validatePorts(ports []corev1.ContainerPort, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := sets.New[string]()
	for i, port := range ports {
		p := p.Index(i)
		if port.Name != "" {
			if messages := validation.IsValidPortName(port.Name); len(messages) > 0 {
				errs = append(errs, rule.Messages(p.Child("name"), port.Name, messages)...)
			} else if names.Has(port.Name) {
				errs = append(errs, field.Duplicate(p.Child("name"), port.Name))
			} else {
				names.Insert(port.Name)
			}
		}
		if port.ContainerPort == 0 {
			errs = append(errs, field.Required(p.Child("containerPort"), ""))
		} else {
			errs = append(errs, rule.Messages(p.Child("containerPort"), port.ContainerPort, validation.IsValidPortNum(int(port.ContainerPort)))...)
		}
		if port.HostPort != 0 {
			errs = append(errs, rule.Messages(p.Child("hostPort"), port.HostPort, validation.IsValidPortNum(int(port.HostPort)))...)
		}
		errs = append(errs, Protocol(port.Protocol, p.Child("protocol"))...)
	}
	return errs
}

// Protocol requires a transport that ports can have.
func Protocol(protocol corev1.Protocol, p *field.Path) field.ErrorList {
	return rule.OneOfRequired(protocol, p, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

func validateUniqueHostPorts(containers []corev1.Container, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	seen := sets.New[string]()
	for i := range containers {
		for j, port := range containers[i].Ports {
			if port.HostPort == 0 {
				continue
			}
			key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
			if seen.Has(key) {
				errs = append(errs, field.Duplicate(p.Index(i).Child("ports").Index(j).Child("hostPort"), key))
			}
			seen.Insert(key)
		}
	}
	return errs
}
