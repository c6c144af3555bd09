// SPDX-License-Identifier: Apache-2.0

// Package review answers the kinds that ask the API server's own authenticator
// and authorizer: TokenReview, SelfSubjectReview, the three access reviews and
// SelfSubjectRulesReview. The verbs call it when one of them is created; none
// is ever stored.
package review

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"kaji/internal/apiserver/request"
	"kaji/internal/apiserver/verb"
)

// Config holds who is asked.
type Config struct {
	Authenticator authenticator.Request
	// Audiences are the API server's own.
	Audiences  authenticator.Audiences
	Authorizer authorizer.Authorizer
	Rules      authorizer.RuleResolver
}

// Virtual returns the answers by resource.
func (c Config) Virtual() map[schema.GroupResource]verb.Virtual {
	authn := func(r string) schema.GroupResource {
		return schema.GroupResource{Group: authenticationv1.GroupName, Resource: r}
	}
	authz := func(r string) schema.GroupResource {
		return schema.GroupResource{Group: authorizationv1.GroupName, Resource: r}
	}
	return map[schema.GroupResource]verb.Virtual{
		authn("tokenreviews"):              answer(c.token),
		authn("selfsubjectreviews"):        answer(c.self),
		authz("subjectaccessreviews"):      answer(c.access),
		authz("selfsubjectaccessreviews"):  answer(c.selfAccess),
		authz("localsubjectaccessreviews"): answer(c.localAccess),
		authz("selfsubjectrulesreviews"):   answer(c.rules),
	}
}

// answer lowers a typed answer; the object posted becomes the one answered.
func answer[T runtime.Object](f func(context.Context, *request.Info, T) error) verb.Virtual {
	return func(ctx context.Context, in *request.Info, obj runtime.Object) (runtime.Object, error) {
		typed, ok := obj.(T)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %T: %#v", typed, obj))
		}
		return obj, f(ctx, in, typed)
	}
}

func (c Config) token(ctx context.Context, _ *request.Info, review *authenticationv1.TokenReview) error {
	if review.Spec.Token == "" {
		return apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	if c.Authenticator == nil {
		return nil
	}
	audiences := authenticator.Audiences(review.Spec.Audiences)
	if len(audiences) == 0 {
		audiences = c.Audiences
	}
	if len(audiences) > 0 {
		ctx = authenticator.WithAudiences(ctx, audiences)
	}
	// A request that holds nothing but the token.
	r := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + review.Spec.Token}}, URL: &url.URL{}}).WithContext(ctx)
	response, ok, err := c.Authenticator.AuthenticateRequest(r)
	review.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
	if err != nil {
		review.Status.Error = err.Error()
	}
	if !ok {
		return nil
	}
	if len(audiences) > 0 && len(audiences.Intersect(response.Audiences)) == 0 {
		return apierrors.NewInternalError(errors.New("error validating audiences"))
	}
	review.Status.User, review.Status.Audiences = describe(response.User), response.Audiences
	return nil
}

func describe(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}

func (c Config) self(ctx context.Context, _ *request.Info, review *authenticationv1.SelfSubjectReview) error {
	*review = authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: describe(request.User(ctx))},
	}
	return nil
}

func (c Config) access(ctx context.Context, _ *request.Info, review *authorizationv1.SubjectAccessReview) error {
	review.Status = c.decide(ctx, asked(&review.Spec), review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	return nil
}

func (c Config) selfAccess(ctx context.Context, _ *request.Info, review *authorizationv1.SelfSubjectAccessReview) error {
	review.Status = c.decide(ctx, request.User(ctx), review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	return nil
}

func (c Config) localAccess(ctx context.Context, in *request.Info, review *authorizationv1.LocalSubjectAccessReview) error {
	if in.Namespace == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("namespace is required on this type: %v", in.Namespace))
	}
	if r := review.Spec.ResourceAttributes; r != nil && r.Namespace != in.Namespace {
		return apierrors.NewBadRequest(fmt.Sprintf("spec.resourceAttributes.namespace must match namespace: %v", in.Namespace))
	}
	review.Status = c.decide(ctx, asked(&review.Spec), review.Spec.ResourceAttributes, review.Spec.NonResourceAttributes)
	return nil
}

// asked is the user a review names.
func asked(spec *authorizationv1.SubjectAccessReviewSpec) user.Info {
	u := &user.DefaultInfo{Name: spec.User, Groups: spec.Groups, UID: spec.UID}
	for k, v := range spec.Extra {
		if u.Extra == nil {
			u.Extra = map[string][]string{}
		}
		u.Extra[k] = v
	}
	return u
}

func (c Config) decide(ctx context.Context, u user.Info, r *authorizationv1.ResourceAttributes, n *authorizationv1.NonResourceAttributes) authorizationv1.SubjectAccessReviewStatus {
	a := attributes(u, r, n)
	decision, reason, err := c.Authorizer.Authorize(ctx, a)
	return authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
		EvaluationError: evaluationError(err, a),
	}
}

func (c Config) rules(ctx context.Context, _ *request.Info, review *authorizationv1.SelfSubjectRulesReview) error {
	if review.Spec.Namespace == "" {
		return apierrors.NewBadRequest("no namespace on request")
	}
	resources, paths, incomplete, err := c.Rules.RulesFor(ctx, request.User(ctx), review.Spec.Namespace)
	status := authorizationv1.SubjectRulesReviewStatus{
		ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{}, Incomplete: incomplete,
	}
	for _, r := range resources {
		status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: r.GetVerbs(), APIGroups: r.GetAPIGroups(), Resources: r.GetResources(), ResourceNames: r.GetResourceNames()})
	}
	for _, r := range paths {
		status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: r.GetVerbs(), NonResourceURLs: r.GetNonResourceURLs()})
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	*review = authorizationv1.SelfSubjectRulesReview{Status: status}
	return nil
}
