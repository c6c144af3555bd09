// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"kaji/internal/app/kubeconfig"
	"kaji/internal/client"
	"kaji/internal/client/remote"
)

// group is what holders of a join token are.
const group = "system:bootstrappers:kaji:default-node-token"

// ReadToken reads a token from a file.
func ReadToken(path string) (string, error) {
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// CreateToken makes a bootstrap token that works for ttl, and prints how to join
// with it.
func CreateToken(ctx context.Context, path string, ttl time.Duration, out io.Writer) error {
	config, err := kubeconfig.REST(path)
	if err != nil {
		return err
	}
	api, err := remote.New(config)
	if err != nil {
		return err
	}
	id, secret := letters(6), letters(16)
	_, err = client.For[*corev1.Secret](api).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: "bootstrap-token-" + id},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{
			"token-id":                       id,
			"token-secret":                   secret,
			"expiration":                     time.Now().Add(ttl).UTC().Format(time.RFC3339),
			"usage-bootstrap-authentication": "true",
			"usage-bootstrap-signing":        "true",
			"auth-extra-groups":              group,
		},
	})
	if err != nil {
		return err
	}
	info, err := client.For[*corev1.ConfigMap](api).Get(ctx, metav1.NamespacePublic, "cluster-info")
	if err != nil {
		return err
	}
	parsed, err := clientcmd.Load([]byte(info.Data["kubeconfig"]))
	if err != nil {
		return err
	}
	for _, cluster := range parsed.Clusters {
		hash, err := Hash(cluster.CertificateAuthorityData)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "kaji agent --server %s --token %s.%s --ca-cert-hash %s\n", cluster.Server, id, secret, hash)
		return err
	}
	return fmt.Errorf("the ConfigMap kube-public/cluster-info names no cluster")
}

// letters returns random lower-case letters and digits.
func letters(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567" // 32: every byte fits evenly
	raw := make([]byte, n)
	rand.Read(raw) // it never fails
	for i, b := range raw {
		raw[i] = alphabet[int(b)%len(alphabet)]
	}
	return string(raw)
}
