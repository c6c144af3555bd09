// SPDX-License-Identifier: Apache-2.0

package client

import (
	"fmt"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Scale returns the Scale that is the answer to a request for a scale
// sub-resource, a copy: that of a custom resource may come without its Go type.
func Scale(answer runtime.Object) (*autoscalingv1.Scale, error) {
	switch o := answer.(type) {
	case *autoscalingv1.Scale:
		return o.DeepCopy(), nil
	case *unstructured.Unstructured:
		if o.GroupVersionKind() == autoscalingv1.SchemeGroupVersion.WithKind("Scale") {
			scale := &autoscalingv1.Scale{}
			return scale, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, scale)
		}
	}
	return nil, fmt.Errorf("the server answered with a %T, want a Scale", answer)
}
