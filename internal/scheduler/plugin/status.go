// SPDX-License-Identifier: Apache-2.0

package plugin

import "strings"

// Code is the outcome of a plugin's call.
type Code int

// The codes, as upstream has them.
const (
	Success Code = iota
	// Error is an internal failure, retried with back-off.
	Error
	// Unschedulable may change when pods are removed: preemption can help.
	Unschedulable
	// UnschedulableAndUnresolvable cannot be changed by preemption.
	UnschedulableAndUnresolvable
	// Wait holds a pod back at Permit.
	Wait
	// Skip leaves the pod to the next binder.
	Skip
	// Pending waits for something outside; the pod is retried at once after it.
	Pending
)

var codes = [...]string{"Success", "Error", "Unschedulable", "UnschedulableAndUnresolvable", "Wait", "Skip", "Pending"}

// String returns the code's name, as metrics show it.
func (c Code) String() string { return codes[c] }

// Status is the outcome of a plugin's call; nil means Success. A Status may be
// shared and must not be changed once it was returned.
type Status struct {
	Code    Code
	Reasons []string
	Err     error
	// Plugin is who rejected; the scheduler fills it for a shared status too,
	// so a plugin that hands out a status for several nodes sets it itself.
	Plugin string
}

// NewStatus returns a status of the named plugin.
func NewStatus(plugin string, code Code, reasons ...string) *Status {
	return &Status{Code: code, Reasons: reasons, Plugin: plugin}
}

// AsStatus wraps an error; nil stays nil.
func AsStatus(plugin string, err error) *Status {
	if err == nil {
		return nil
	}
	return &Status{Code: Error, Err: err, Plugin: plugin}
}

// OK says whether the status is Success.
func (s *Status) OK() bool { return s == nil || s.Code == Success }

// CodeOf returns the code of a status that may be nil.
func (s *Status) CodeOf() Code {
	if s == nil {
		return Success
	}
	return s.Code
}

// Rejected says whether the pod was refused, as opposed to a failure.
func (s *Status) Rejected() bool {
	c := s.CodeOf()
	return c == Unschedulable || c == UnschedulableAndUnresolvable || c == Pending
}

// Messages returns the error and the reasons.
func (s *Status) Messages() []string {
	if s == nil {
		return nil
	}
	if s.Err != nil {
		return append([]string{s.Err.Error()}, s.Reasons...)
	}
	return s.Reasons
}

// Message joins Messages.
func (s *Status) Message() string { return strings.Join(s.Messages(), ", ") }
