// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/client-go/tools/cache"

	"kaji/internal/client"
)

// Field managers, as upstream's.
const (
	producer = "api-priority-and-fairness-config-producer-v1"
	consumer = "api-priority-and-fairness-config-consumer-v1"
)

// keepAfter is how long after a change the objects every cluster has are looked
// after, and how long after a failure it is tried again.
const keepAfter = time.Minute

// Run follows the configuring objects, says in their status whether the level
// they name exists, and keeps those that every cluster has, until ctx ends.
func (f *Flow) Run(ctx context.Context) error {
	if !f.cfg.Limits.Fair {
		return nil
	}
	f.keep(ctx)
	schemas := client.For[*flowcontrolv1.FlowSchema](f.cfg.Client)
	levels := client.For[*flowcontrolv1.PriorityLevelConfiguration](f.cfg.Client)
	changed := make(chan struct{}, 1)
	note := func() {
		select {
		case changed <- struct{}{}:
		default: // the change before is not looked at yet
		}
	}
	for _, inf := range []cache.SharedIndexInformer{schemas.Informer(), levels.Informer()} {
		registered, err := inf.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { note() }, UpdateFunc: func(any, any) { note() }, DeleteFunc: func(any) { note() },
		})
		if err != nil {
			return fmt.Errorf("flow: %w", err)
		}
		defer func() { _ = inf.RemoveEventHandler(registered) }()
	}
	if !client.WaitForSync(ctx, schemas.Informer(), levels.Informer()) {
		return nil
	}
	keep := time.NewTimer(keepAfter)
	defer keep.Stop()
	keep.Stop() // the objects were just kept
	for {
		select {
		case <-changed:
			all := levels.CachedList("", labels.Everything())
			rules := schemas.CachedList("", labels.Everything())
			f.configure(rules, all)
			f.report(ctx, rules, all)
			keep.Reset(keepAfter)
		case <-keep.C:
			f.keep(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// keep creates and restores the objects that every cluster has.
func (f *Flow) keep(ctx context.Context) {
	levels := client.For[*flowcontrolv1.PriorityLevelConfiguration](f.cfg.Client)
	schemas := client.For[*flowcontrolv1.FlowSchema](f.cfg.Client)
	for i, set := range [][]*flowcontrolv1.PriorityLevelConfiguration{bootstrap.SuggestedPriorityLevelConfigurations, bootstrap.MandatoryPriorityLevelConfigurations} {
		for _, want := range set {
			f.note(ctx, want.Name, keepOne(ctx, f.cfg.Client, levels.Resource(""), want, i == 1, func(have *flowcontrolv1.PriorityLevelConfiguration) bool {
				same := equality.Semantic.DeepEqual(have.Spec, want.Spec)
				have.Spec = *want.Spec.DeepCopy()
				return same
			}))
		}
	}
	for i, set := range [][]*flowcontrolv1.FlowSchema{bootstrap.SuggestedFlowSchemas, bootstrap.MandatoryFlowSchemas} {
		for _, want := range set {
			f.note(ctx, want.Name, keepOne(ctx, f.cfg.Client, schemas.Resource(""), want, i == 1, func(have *flowcontrolv1.FlowSchema) bool {
				same := equality.Semantic.DeepEqual(have.Spec, want.Spec)
				have.Spec = *want.Spec.DeepCopy()
				return same
			}))
		}
	}
}

func (f *Flow) note(ctx context.Context, name string, err error) {
	if err != nil && ctx.Err() == nil {
		f.log.Error("cannot keep an object of priority and fairness", "name", name, "err", err)
	}
}

// keepOne creates an object or gives it the spec it must have. One that is only
// suggested belongs to whoever has said so in its annotation, or has changed it.
// restore gives an object the spec and says whether it had it.
func keepOne[T client.Object](ctx context.Context, c client.Interface, r client.Resource, want T, mandatory bool, restore func(T) (same bool)) error {
	const annotation = flowcontrolv1.AutoUpdateAnnotationKey
	found, err := c.Get(ctx, r, want.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = c.Create(ctx, r, "", want, metav1.CreateOptions{FieldManager: producer})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	}
	if err != nil {
		return err
	}
	have := found.DeepCopyObject().(T)
	marked := have.GetAnnotations()[annotation]
	ours := mandatory || marked == "true"
	if marked == "" {
		// Nobody has said whose it is: the first generation is still ours.
		ours = mandatory || have.GetGeneration() == 1
	}
	if !ours && marked != "" {
		return nil
	}
	same := true
	if ours {
		same = restore(have)
	}
	if same && (marked == "true") == ours && marked != "" {
		return nil
	}
	annotations := maps.Clone(have.GetAnnotations())
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[annotation] = strconv.FormatBool(ours)
	have.SetAnnotations(annotations)
	_, err = c.Update(ctx, r, have.GetName(), runtime.Object(have), metav1.UpdateOptions{FieldManager: producer})
	return err
}

// report says in each schema's status whether its level exists.
func (f *Flow) report(ctx context.Context, schemas []*flowcontrolv1.FlowSchema, levels []*flowcontrolv1.PriorityLevelConfiguration) {
	exists := map[string]bool{}
	for _, l := range withMandatory(levels, bootstrap.MandatoryPriorityLevelConfigurations) {
		exists[l.Name] = true
	}
	for _, s := range schemas {
		want := dangling(s.Spec.PriorityLevelConfiguration.Name, exists[s.Spec.PriorityLevelConfiguration.Name])
		stale := true
		for _, have := range s.Status.Conditions {
			if have.Type == want.Type && have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
				stale = false
			}
		}
		if stale {
			f.note(ctx, s.Name, f.apply(ctx, s, want))
		}
	}
}

func dangling(level string, found bool) flowcontrolv1.FlowSchemaCondition {
	c := flowcontrolv1.FlowSchemaCondition{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found",
		LastTransitionTime: metav1.Now(),
		Message:            fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", level),
	}
	if !found {
		c.Status, c.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		c.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", level)
	}
	return c
}

// apply applies a condition to a schema's status.
func (f *Flow) apply(ctx context.Context, s *flowcontrolv1.FlowSchema, condition flowcontrolv1.FlowSchemaCondition) error {
	patch, err := json.Marshal(map[string]any{
		"apiVersion": flowcontrolv1.SchemeGroupVersion.String(), "kind": "FlowSchema",
		"metadata": map[string]any{"name": s.Name, "uid": s.UID},
		"status":   map[string]any{"conditions": []flowcontrolv1.FlowSchemaCondition{condition}},
	})
	if err != nil {
		return err
	}
	force := true
	r := client.For[*flowcontrolv1.FlowSchema](f.cfg.Client).Resource("")
	r.Subresource = "status"
	_, err = f.cfg.Client.Patch(ctx, r, s.Name, types.ApplyPatchType, patch, metav1.PatchOptions{FieldManager: consumer, Force: &force})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it has gone, or changed: another event comes
	}
	return err
}
