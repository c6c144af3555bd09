// SPDX-License-Identifier: Apache-2.0

package apiregistration

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"kaji/internal/api"
	"kaji/internal/api/rule"
	"kaji/internal/api/table"
)

func apiService() *api.Kind {
	return &api.Kind{
		Group: apiregistrationv1.GroupName, Name: "APIService", Resource: "apiservices", Singular: "apiservice",
		Categories: []string{"api-extensions"},
		Versions: []api.Version{{
			GroupVersion: apiregistrationv1.SchemeGroupVersion,
			New:          api.New[apiregistrationv1.APIService], NewList: api.NewList[apiregistrationv1.APIServiceList],
			Default: api.Default(func(s *apiregistrationv1.APIService) {
				if ref := s.Spec.Service; ref != nil && ref.Port == nil {
					port := int32(443)
					ref.Port = &port
				}
			}),
		}},
		Storage: apiregistrationv1.SchemeGroupVersion,
		Prefix:  "/registry/apiregistration.k8s.io/apiservices",
		New:     api.New[apiregistrationv1.APIService], NewList: api.NewList[apiregistrationv1.APIServiceList],
		Rules: api.For[*apiregistrationv1.APIService]{
			PrepareForCreate: func(_ context.Context, s *apiregistrationv1.APIService) {
				s.Status = apiregistrationv1.APIServiceStatus{}
				if s.Spec.Service == nil {
					s.Status.Conditions = []apiregistrationv1.APIServiceCondition{{
						Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, LastTransitionTime: metav1.Now(),
						Reason: "Local", Message: "Local APIServices are always available",
					}}
				}
			},
			PrepareForUpdate: func(_ context.Context, s, old *apiregistrationv1.APIService) {
				s.Status = old.Status
			},
			Validate: validateService,
			ValidateUpdate: func(s, old *apiregistrationv1.APIService) field.ErrorList {
				return append(validateMetadataUpdate(s, old), validateService(s)...)
			},
			Columns: []metav1.TableColumnDefinition{
				table.Name(),
				table.String("Service", "The reference to the service that hosts this API endpoint."),
				table.String("Available", "Whether this service is available."),
				table.Age(),
			},
			Cells: func(s *apiregistrationv1.APIService) []any {
				service := "Local"
				if ref := s.Spec.Service; ref != nil {
					service = ref.Namespace + "/" + ref.Name
				}
				return []any{s.Name, service, availability(s), table.Since(s.CreationTimestamp)}
			},
		}.Rules(),
		OwnMetadata: true, PlainFinalizers: true, RepeatsErrors: true,
		ResetFields: []string{"status"},
		Status: &api.Subresource{
			Name: "status",
			PrepareForUpdate: api.PrepareUpdate(func(_ context.Context, s, old *apiregistrationv1.APIService) {
				s.Spec = old.Spec
				s.Labels, s.Annotations = old.Labels, old.Annotations
				s.Finalizers, s.OwnerReferences = old.Finalizers, old.OwnerReferences
			}),
			ValidateUpdate: api.Update(func(s, old *apiregistrationv1.APIService) field.ErrorList {
				return append(validateMetadataUpdate(s, old), validateServiceStatus(&s.Status, field.NewPath("status", "conditions"))...)
			}),
			ResetFields: []string{"metadata", "spec"},
			NoTable:     true,
		},
	}
}

func validateMetadataUpdate(s, old *apiregistrationv1.APIService) field.ErrorList {
	return apivalidation.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata")).Filter()
}

func availability(s *apiregistrationv1.APIService) string {
	for _, c := range s.Status.Conditions {
		if c.Type != apiregistrationv1.Available {
			continue
		}
		if c.Status != apiregistrationv1.ConditionTrue && c.Reason != "" {
			return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
		}
		return string(c.Status)
	}
	return string(apiregistrationv1.ConditionUnknown)
}

func validateService(s *apiregistrationv1.APIService) field.ErrorList {
	path, spec := field.NewPath("spec"), &s.Spec
	want := spec.Version + "." + spec.Group
	errs := apivalidation.ValidateObjectMeta(&s.ObjectMeta, false, func(name string, _ bool) []string {
		if messages := content.IsPathSegmentName(name); len(messages) > 0 || name == want {
			return messages
		}
		return []string{fmt.Sprintf("must be `spec.version+\".\"+spec.group`: %q", want)}
	}, field.NewPath("metadata")).Filter()
	if spec.Group == "" && spec.Version != "v1" {
		errs = append(errs, field.Required(path.Child("group"), "only v1 may have an empty group and it better be legacy kube"))
	}
	if spec.Group != "" {
		errs = append(errs, rule.Subdomain(spec.Group, path.Child("group"))...)
	}
	errs = append(errs, rule.Messages(path.Child("version"), spec.Version, validation.IsDNS1035Label(spec.Version))...)
	if n := spec.GroupPriorityMinimum; n <= 0 || n > 20000 {
		errs = append(errs, field.Invalid(path.Child("groupPriorityMinimum"), n, "must be positive and less than 20000"))
	}
	if n := spec.VersionPriority; n <= 0 || n > 1000 {
		errs = append(errs, field.Invalid(path.Child("versionPriority"), n, "must be positive and less than 1000"))
	}
	if spec.Service == nil {
		if len(spec.CABundle) != 0 {
			errs = append(errs, field.Invalid(path.Child("caBundle"), fmt.Sprintf("%d bytes", len(spec.CABundle)), "local APIServices may not have a caBundle"))
		}
		if spec.InsecureSkipTLSVerify {
			errs = append(errs, field.Invalid(path.Child("insecureSkipTLSVerify"), true, "local APIServices may not have insecureSkipTLSVerify"))
		}
		return errs
	}
	errs = append(errs, validateServiceReference(spec.Service, path.Child("service"))...)
	if spec.InsecureSkipTLSVerify && len(spec.CABundle) > 0 {
		errs = append(errs, field.Invalid(path.Child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present"))
	}
	return errs
}

func validateServiceReference(ref *apiregistrationv1.ServiceReference, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if ref.Namespace == "" {
		errs = append(errs, field.Required(path.Child("namespace"), ""))
	}
	if ref.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), ""))
	}
	var port int32
	if ref.Port != nil {
		port = *ref.Port
	}
	if messages := validation.IsValidPortNum(int(port)); messages != nil {
		errs = append(errs, field.Invalid(path.Child("port"), port, "port is not valid: "+strings.Join(messages, ", ")))
	}
	return errs
}

func validateServiceStatus(status *apiregistrationv1.APIServiceStatus, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, c := range status.Conditions {
		switch c.Status {
		case apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown:
		default:
			errs = append(errs, field.NotSupported(path.Index(i).Child("status"), c.Status, []apiregistrationv1.ConditionStatus{
				apiregistrationv1.ConditionTrue, apiregistrationv1.ConditionFalse, apiregistrationv1.ConditionUnknown}))
		}
	}
	return errs
}
