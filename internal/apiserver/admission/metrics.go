// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"context"
	"time"

	upstream "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/metrics"
)

// Steps of admission, as the metrics call them.
const (
	stepAdmit    = "admit"
	stepValidate = "validate"
)

// labelled is what the metrics want to know of a request.
type labelled struct {
	upstream.Attributes
	operation Operation
}

// GetOperation implements upstream's admission.Attributes.
func (l labelled) GetOperation() upstream.Operation { return upstream.Operation(l.operation) }

// measureStep counts one step and how long it took
// (apiserver_admission_step_admission_duration_seconds).
func measureStep(ctx context.Context, step string, a *Attributes, run func() error) error {
	began := time.Now()
	err := run()
	metrics.Metrics.ObserveAdmissionStep(ctx, time.Since(began), err != nil, labelled{operation: a.Operation}, step)
	return err
}

// measure does so for one plug-in
// (apiserver_admission_controller_admission_duration_seconds).
func measure(ctx context.Context, step string, a *Attributes, name string, run func(context.Context, *Attributes) error) error {
	began := time.Now()
	err := run(ctx, a)
	metrics.Metrics.ObserveAdmissionController(ctx, time.Since(began), err != nil, labelled{operation: a.Operation}, step, name)
	return err
}
