// SPDX-License-Identifier: Apache-2.0

// Package bootstraptoken recognises the tokens that new nodes bring: "id.secret",
// kept in a Secret bootstrap-token-id of type bootstrap.kubernetes.io/token in
// kube-system. The authentication chain calls it where
// --enable-bootstrap-token-auth is set.
//
// It follows upstream's rules word for word. It writes nothing: expired Secrets
// are the token cleaner's.
package bootstraptoken

import (
	"context"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Everybody with a token is in this group; tokens may name more below it.
const group = "system:bootstrappers"

const (
	prefix    = "bootstrap-token-"
	lengthID  = 6
	length    = lengthID + 1 + 16
	namespace = metav1.NamespaceSystem
	// groupForm is what a group that a token names must match.
	groupForm = `\A` + group + `:[a-z0-9:-]{0,255}[a-z0-9]\z`
)

// Objects reads an object of the core group; the error is NotFound when it is
// absent. The object is shared.
type Objects func(ctx context.Context, resource, namespace, name string) (metav1.Object, error)

// Authenticator judges bootstrap tokens. It implements authenticator.Token.
type Authenticator struct {
	Objects Objects
	Logger  *slog.Logger
}

var _ authenticator.Token = (*Authenticator)(nil)

// AuthenticateToken implements authenticator.Token. A token of another form, or
// one that is no good, is left to others.
func (a *Authenticator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if len(token) != length || token[lengthID] != '.' {
		return nil, false, nil
	}
	id, secret := token[:lengthID], token[lengthID+1:]
	if !only(id, "") || !only(secret, "") {
		return nil, false, nil
	}
	object, err := a.Objects(ctx, "secrets", namespace, prefix+id)
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	groups, err := judge(object, id, secret, time.Now())
	if err != nil {
		a.Logger.Debug("bootstrap token is refused", "secret", prefix+id, "err", err)
		return nil, false, nil
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: "system:bootstrap:" + id, Groups: groups}}, true, nil
}

// judge returns the groups of a token that is good.
func judge(object metav1.Object, id, secret string, now time.Time) ([]string, error) {
	s, ok := object.(*corev1.Secret)
	switch {
	case !ok || s.Type != corev1.SecretTypeBootstrapToken:
		return nil, fmt.Errorf("type is not %s", corev1.SecretTypeBootstrapToken)
	case s.DeletionTimestamp != nil:
		return nil, fmt.Errorf("deleted and awaiting removal")
	case subtle.ConstantTimeCompare(s.Data["token-secret"], []byte(secret)) != 1:
		return nil, fmt.Errorf("token-secret differs")
	case string(s.Data["token-id"]) != id:
		return nil, fmt.Errorf("token-id differs")
	case expired(string(s.Data["expiration"]), now):
		return nil, fmt.Errorf("expired")
	case string(s.Data["usage-bootstrap-authentication"]) != "true":
		return nil, fmt.Errorf("not marked usage-bootstrap-authentication=true")
	}
	return groupsOf(string(s.Data["auth-extra-groups"]))
}

// expired says whether the time is past; one that is unreadable is.
func expired(text string, now time.Time) bool {
	if text == "" {
		return false
	}
	at, err := time.Parse(time.RFC3339, text)
	return err != nil || !now.Before(at)
}

func groupsOf(extra string) ([]string, error) {
	groups := []string{group}
	for g := range strings.SplitSeq(extra, ",") {
		if extra == "" {
			break
		}
		if !goodGroup(g) {
			return nil, fmt.Errorf("bootstrap group %q is invalid (must match %s)", g, groupForm)
		}
		groups = append(groups, g)
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// goodGroup says whether a group matches groupForm. It is written out because
// the expression would cost every program start two milliseconds.
func goodGroup(g string) bool {
	name, ok := strings.CutPrefix(g, group+":")
	return ok && name != "" && len(name) <= 256 && only(name, ":-") && only(name[len(name)-1:], "")
}

// only says whether s has no other characters than small letters, digits and
// those of more.
func only(s, more string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}
