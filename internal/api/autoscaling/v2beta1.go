// SPDX-License-Identifier: Apache-2.0

package autoscaling

import (
	"encoding/json"
	"maps"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"kaji/internal/api"
	"kaji/internal/api/autoscaling/v2beta1"
	"kaji/internal/api/badvalue"
)

// V2Beta1 is the version v2beta1 of HorizontalPodAutoscaler, which Kubernetes
// removed: package legacy adds it to the kind.
func V2Beta1() api.Version {
	return api.Version{
		GroupVersion: v2beta1.SchemeGroupVersion,
		New:          api.New[v2beta1.HorizontalPodAutoscaler], NewList: api.NewList[v2beta1.HorizontalPodAutoscalerList],
		ToHub: api.Convert(fromV2Beta1), FromHub: api.Convert(toV2Beta1),
	}
}

// toV2Beta1 puts the behaviour, for which the version has no field, into an
// annotation under its Go field names.
func toV2Beta1(in *autoscalingv2.HorizontalPodAutoscaler, out *v2beta1.HorizontalPodAutoscaler) error {
	in = in.DeepCopy()
	out.ObjectMeta = in.ObjectMeta
	out.Spec = v2beta1.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv1.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
		MinReplicas:    in.Spec.MinReplicas,
		MaxReplicas:    in.Spec.MaxReplicas,
		Metrics:        each(in.Spec.Metrics, metricToV1),
	}
	out.Status = v2beta1.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration,
		LastScaleTime:      in.Status.LastScaleTime,
		CurrentReplicas:    in.Status.CurrentReplicas,
		DesiredReplicas:    in.Status.DesiredReplicas,
		CurrentMetrics:     each(in.Status.CurrentMetrics, statusToV1),
		Conditions:         each(in.Status.Conditions, conditionToV1),
	}
	if in.Spec.Behavior == nil {
		return nil
	}
	text, err := json.Marshal(badvalue.Of(in.Spec.Behavior))
	if err != nil {
		return err
	}
	if out.Annotations == nil {
		out.Annotations = map[string]string{}
	}
	out.Annotations[behaviorAnnotation] = string(text)
	return nil
}

func fromV2Beta1(in *v2beta1.HorizontalPodAutoscaler, out *autoscalingv2.HorizontalPodAutoscaler) error {
	in = in.DeepCopyObject().(*v2beta1.HorizontalPodAutoscaler)
	out.ObjectMeta = in.ObjectMeta
	out.Spec = autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference(in.Spec.ScaleTargetRef),
		MinReplicas:    in.Spec.MinReplicas,
		MaxReplicas:    in.Spec.MaxReplicas,
		Metrics:        each(in.Spec.Metrics, metricFromV1),
	}
	out.Status = autoscalingv2.HorizontalPodAutoscalerStatus{
		ObservedGeneration: in.Status.ObservedGeneration,
		LastScaleTime:      in.Status.LastScaleTime,
		CurrentReplicas:    in.Status.CurrentReplicas,
		DesiredReplicas:    in.Status.DesiredReplicas,
		CurrentMetrics:     each(in.Status.CurrentMetrics, statusFromV1),
		Conditions:         each(in.Status.Conditions, conditionFromV1),
	}
	text, there := in.Annotations[behaviorAnnotation]
	if !there {
		return nil
	}
	out.Annotations = maps.Clone(in.Annotations)
	delete(out.Annotations, behaviorAnnotation)
	// One that does not parse is passed over: anyone can write it.
	var behavior autoscalingv2.HorizontalPodAutoscalerBehavior
	if json.Unmarshal([]byte(text), &behavior) == nil && behavior != (autoscalingv2.HorizontalPodAutoscalerBehavior{}) {
		out.Spec.Behavior = &behavior
	}
	return nil
}

func conditionToV1(c *autoscalingv2.HorizontalPodAutoscalerCondition) autoscalingv1.HorizontalPodAutoscalerCondition {
	return autoscalingv1.HorizontalPodAutoscalerCondition{
		Type: autoscalingv1.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status,
		LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
	}
}

func conditionFromV1(c *autoscalingv1.HorizontalPodAutoscalerCondition) autoscalingv2.HorizontalPodAutoscalerCondition {
	return autoscalingv2.HorizontalPodAutoscalerCondition{
		Type: autoscalingv2.HorizontalPodAutoscalerConditionType(c.Type), Status: c.Status,
		LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message,
	}
}

// each converts a list; an empty one becomes nil.
func each[In, Out any](in []In, convert func(*In) Out) (out []Out) {
	for i := range in {
		out = append(out, convert(&in[i]))
	}
	return out
}
