// SPDX-License-Identifier: Apache-2.0

package quota

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
)

func services() *Evaluator {
	return &Evaluator{
		Resource: corev1.Resource("services"),
		measures: func(name corev1.ResourceName) bool {
			switch name {
			case "count/services", corev1.ResourceServices, corev1.ResourceServicesNodePorts, corev1.ResourceServicesLoadBalancers:
				return true
			}
			return false
		},
		charges: func(Write) bool { return true }, // an update can change the type
		frees: func(oldObj, nowObj runtime.Object) bool {
			old, ok1 := oldObj.(*corev1.Service)
			now, ok2 := nowObj.(*corev1.Service)
			return ok1 && ok2 && exposure(old) != exposure(now)
		},
		usage: serviceUsage,
	}
}

// exposure is the type of a Service where that takes more than an object.
func exposure(s *corev1.Service) corev1.ServiceType {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		return s.Spec.Type
	}
	return ""
}

func serviceUsage(obj runtime.Object) (corev1.ResourceList, error) {
	s, ok := obj.(*corev1.Service)
	if !ok {
		return nil, wrongType("*v1.Service", obj)
	}
	nodePorts, balancers := 0, 0
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		nodePorts = len(s.Spec.Ports)
	case corev1.ServiceTypeLoadBalancer:
		balancers = 1
		nodePorts = len(s.Spec.Ports) // what is meant counts: ports are given later
		if allocate := s.Spec.AllocateLoadBalancerNodePorts; allocate != nil && !*allocate {
			nodePorts = 0
			for i := range s.Spec.Ports {
				if s.Spec.Ports[i].NodePort != 0 {
					nodePorts++
				}
			}
		}
	}
	return corev1.ResourceList{
		"count/services": one(), corev1.ResourceServices: one(),
		corev1.ResourceServicesNodePorts:     *resource.NewQuantity(int64(nodePorts), resource.DecimalSI),
		corev1.ResourceServicesLoadBalancers: *resource.NewQuantity(int64(balancers), resource.DecimalSI),
	}, nil
}
