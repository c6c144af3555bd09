// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"kaji/internal/api/rule"
)

// handler is what a probe or a lifecycle hook does; exactly one member is set.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

// validateProbe checks a probe, which may be nil; once requires that a single
// success suffices.
func validateProbe(probe *corev1.Probe, once bool, p *field.Path) field.ErrorList {
	if probe == nil {
		return nil
	}
	errs := validateHandler(handler{exec: probe.Exec, http: probe.HTTPGet, tcp: probe.TCPSocket, grpc: probe.GRPC}, nil, p)
	for _, n := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", probe.InitialDelaySeconds},
		{"timeoutSeconds", probe.TimeoutSeconds},
		{"periodSeconds", probe.PeriodSeconds},
		{"successThreshold", probe.SuccessThreshold},
		{"failureThreshold", probe.FailureThreshold},
	} {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(n.value), p.Child(n.name))...)
	}
	if grace := probe.TerminationGracePeriodSeconds; grace != nil && *grace <= 0 {
		errs = append(errs, field.Invalid(p.Child("terminationGracePeriodSeconds"), *grace, "must be greater than 0"))
	}
	if once && probe.SuccessThreshold != 1 {
		errs = append(errs, field.Invalid(p.Child("successThreshold"), probe.SuccessThreshold, "must be 1"))
	}
	return errs
}

func (c *checker) validateLifecycle(lifecycle *corev1.Lifecycle, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	for _, hook := range []struct {
		name    string
		handler *corev1.LifecycleHandler
	}{{"postStart", lifecycle.PostStart}, {"preStop", lifecycle.PreStop}} {
		if h := hook.handler; h != nil {
			errs = append(errs, validateHandler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep},
				c.spec.TerminationGracePeriodSeconds, p.Child(hook.name))...)
		}
	}
	if lifecycle.StopSignal != nil {
		errs = append(errs, validateStopSignal(*lifecycle.StopSignal, c.spec.OS, p.Child("stopSignal"))...)
	}
	return errs
}

func validateHandler(h handler, grace *int64, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	chosen := false
	member := func(set bool, name string, check func(p *field.Path) field.ErrorList) {
		switch {
		case !set:
		case chosen:
			errs = append(errs, field.Forbidden(p.Child(name), "may not specify more than 1 handler type"))
		default:
			chosen = true
			errs = append(errs, check(p.Child(name))...)
		}
	}
	member(h.exec != nil, "exec", func(p *field.Path) field.ErrorList {
		if len(h.exec.Command) == 0 {
			return field.ErrorList{field.Required(p.Child("command"), "")}
		}
		return nil
	})
	member(h.http != nil, "httpGet", func(p *field.Path) field.ErrorList { return validateHTTPGet(h.http, p) })
	member(h.tcp != nil, "tcpSocket", func(p *field.Path) field.ErrorList { return rule.Port(h.tcp.Port, p.Child("port")) })
	member(h.grpc != nil, "grpc", func(p *field.Path) field.ErrorList {
		return rule.Port(intstr.FromInt32(h.grpc.Port), p.Child("port"))
	})
	member(h.sleep != nil, "sleep", func(p *field.Path) field.ErrorList {
		if grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			return field.ErrorList{field.Invalid(p, h.sleep.Seconds,
				fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace))}
		}
		return nil
	})
	if !chosen {
		errs = append(errs, field.Required(p, "must specify a handler type"))
	}
	return errs
}

func validateHTTPGet(a *corev1.HTTPGetAction, p *field.Path) field.ErrorList {
	var errs field.ErrorList
	if a.Path == "" {
		errs = append(errs, field.Required(p.Child("path"), ""))
	}
	errs = append(errs, rule.Port(a.Port, p.Child("port"))...)
	errs = append(errs, rule.OneOf(a.Scheme, p.Child("scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, header := range a.HTTPHeaders {
		errs = append(errs, rule.Messages(p.Child("httpHeaders"), header.Name, validation.IsHTTPHeaderName(header.Name))...)
	}
	return errs
}

func validateStopSignal(signal corev1.Signal, os *corev1.PodOS, p *field.Path) field.ErrorList {
	if os == nil {
		return field.ErrorList{field.Forbidden(p, "may not be set for containers with empty `spec.os.name`")}
	}
	var supported []corev1.Signal
	switch os.Name {
	case corev1.Windows:
		supported = []corev1.Signal{"SIGKILL", "SIGTERM"}
	case corev1.Linux:
		supported = linuxSignals()
	default:
		return nil
	}
	if slices.Contains(supported, signal) {
		return nil
	}
	slices.Sort(supported)
	return field.ErrorList{field.NotSupported(p, signal, supported)}
}

func linuxSignals() []corev1.Signal {
	signals := []corev1.Signal{
		"SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO", "SIGIOT",
		"SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV", "SIGSTKFLT", "SIGSTOP", "SIGSYS", "SIGTERM",
		"SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM", "SIGWINCH", "SIGXCPU", "SIGXFSZ",
		"SIGRTMIN", "SIGRTMAX",
	}
	for i := 1; i <= 15; i++ {
		signals = append(signals, corev1.Signal(fmt.Sprintf("SIGRTMIN+%d", i)))
	}
	for i := 1; i <= 14; i++ {
		signals = append(signals, corev1.Signal(fmt.Sprintf("SIGRTMAX-%d", i)))
	}
	return signals
}
