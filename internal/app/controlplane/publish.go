// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"encoding/json"
	"maps"
	"os"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"kaji/internal/client"
)

// published is the ConfigMap by which aggregated API servers know the cluster's
// clients and its front proxy.
const published = "extension-apiserver-authentication"

// authorities are the data of the ConfigMap, empty when nothing is to be told.
// A server alone tells only of authorities it was given, as upstream does.
func (p *Plane) authorities() (map[string]string, error) {
	a := &p.Options.Authentication
	data := map[string]string{}
	read := func(key, file string, own []byte) error {
		switch {
		case file != "":
			pem, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			data[key] = string(pem)
		case p.Options.PublishAuthorities:
			data[key] = string(own)
		}
		return nil
	}
	if err := read("client-ca-file", a.ClientCAFile, p.Keys.CA.Cert); err != nil {
		return nil, err
	}
	if err := read("requestheader-client-ca-file", a.RequestHeaderCAFile, p.Keys.FrontProxyCA.Cert); err != nil {
		return nil, err
	}
	if data["requestheader-client-ca-file"] == "" {
		return data, nil
	}
	for key, list := range map[string]struct{ given, own []string }{
		"requestheader-allowed-names":        {a.RequestHeaderNames, []string{"front-proxy-client"}},
		"requestheader-username-headers":     {a.RequestHeaderUsers, []string{"X-Remote-User"}},
		"requestheader-uid-headers":          {a.RequestHeaderUIDs, []string{"X-Remote-Uid"}},
		"requestheader-group-headers":        {a.RequestHeaderGroups, []string{"X-Remote-Group"}},
		"requestheader-extra-headers-prefix": {a.RequestHeaderExtraPrefix, []string{"X-Remote-Extra-"}},
	} {
		values := list.given
		if a.RequestHeaderCAFile == "" {
			values = list.own
		}
		if values == nil {
			values = []string{}
		}
		text, err := json.Marshal(values)
		if err != nil {
			return nil, err
		}
		data[key] = string(text)
	}
	return data, nil
}

// publish writes the ConfigMap where it is missing or differs.
func (p *Plane) publish(ctx context.Context, c client.Interface) error {
	data, err := p.authorities()
	if err != nil || len(data) == 0 {
		return err
	}
	configs := client.For[*corev1.ConfigMap](c)
	for {
		have, err := configs.Get(ctx, metav1.NamespaceSystem, published)
		switch {
		case apierrors.IsNotFound(err):
			_, err = configs.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: published}, Data: data})
		case err == nil && maps.Equal(have.Data, data):
			return nil
		case err == nil:
			changed := have.DeepCopy()
			changed.Data = data
			_, err = configs.Update(ctx, changed)
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
}
