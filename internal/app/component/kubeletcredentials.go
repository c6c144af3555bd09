// SPDX-License-Identifier: Apache-2.0

package component

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/connrotation"

	"kaji/internal/kubelet/flags"
)

// credentials are what the agent stands at the API server with: those of a
// kubeconfig, or a certificate that was asked for with bootstrap credentials,
// and is asked for anew before it ends.
type credentials struct {
	config  *rest.Config
	manager certificate.Manager // nil where nothing rotates
	dialer  *connrotation.Dialer
	log     *slog.Logger
}

// rotationCheck is how often the rotated certificate is looked at.
const rotationCheck = 10 * time.Second

func newCredentials(ctx context.Context, o *flags.Options, node string, log *slog.Logger) (*credentials, error) {
	c := &credentials{log: log}
	_, err := os.Stat(o.Kubeconfig)
	switch {
	case err == nil:
		if c.config, err = restConfig(o.Kubeconfig, "", "kubelet"); err != nil || !o.Configuration.RotateCertificates {
			return c, err
		}
	case !errors.Is(err, fs.ErrNotExist) || o.BootstrapKubeconfig == "":
		return nil, fmt.Errorf("failed to run Kubelet: unable to load kubeconfig: %w", err)
	default:
		if c.config, err = restConfig(o.BootstrapKubeconfig, "", "kubelet"); err != nil {
			return nil, fmt.Errorf("unable to load bootstrap kubeconfig: %w", err)
		}
	}
	return c, c.rotate(ctx, o, node)
}

// rotate puts a certificate in place of what the configuration has, and waits
// for it where there is none yet.
func (c *credentials) rotate(ctx context.Context, o *flags.Options, node string) error {
	if err := os.MkdirAll(o.CertDir, 0o700); err != nil {
		return err
	}
	first := rest.CopyConfig(c.config)
	if err := rest.LoadTLSFiles(first); err != nil {
		return err
	}
	store, err := certificate.NewFileStore("kubelet-client", o.CertDir, o.CertDir, "", "")
	if err != nil {
		return fmt.Errorf("failed to initialize client certificate store: %w", err)
	}
	secured, err := c.secure(first)
	if err != nil {
		return err
	}
	c.manager, err = certificate.NewManager(&certificate.Config{
		ClientsetFn: func(current *tls.Certificate) (kubernetes.Interface, error) {
			if current == nil {
				return kubernetes.NewForConfig(first)
			}
			return kubernetes.NewForConfig(secured)
		},
		Template:   &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}},
		SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, GetUsages: certificate.DefaultKubeletClientGetUsages,
		BootstrapCertificatePEM: first.CertData, BootstrapKeyPEM: first.KeyData, CertificateStore: store,
	})
	if err != nil {
		return fmt.Errorf("failed to initialize client certificate manager: %w", err)
	}
	c.manager.Start()
	if err := c.wait(ctx, node); err != nil {
		return err
	}
	c.config = secured
	if _, err := os.Stat(o.Kubeconfig); errors.Is(err, fs.ErrNotExist) {
		return writeNodeKubeconfig(o, first)
	}
	return nil
}

func (c *credentials) wait(ctx context.Context, node string) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	told := time.Now()
	for c.manager.Current() == nil {
		select {
		case <-ctx.Done():
			c.manager.Stop()
			return ctx.Err()
		case <-tick.C:
		}
		if time.Since(told) > 5*time.Second {
			c.log.Info("waiting for the certificate request to be approved and signed", "node", node)
			told = time.Now().Add(time.Minute)
		}
	}
	return nil
}

// secure returns a configuration that shows the manager's certificate of the
// moment.
func (c *credentials) secure(from *rest.Config) (*rest.Config, error) {
	anonymous := rest.AnonymousClientConfig(from)
	settings, err := rest.TLSConfigFor(anonymous)
	if err != nil {
		return nil, err
	}
	if settings == nil {
		settings = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	settings.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if current := c.manager.Current(); current != nil {
			return current, nil
		}
		return &tls.Certificate{}, nil
	}
	c.dialer = connrotation.NewDialer((&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext)
	secured := rest.CopyConfig(anonymous)
	secured.TLSClientConfig = rest.TLSClientConfig{}
	secured.Transport = utilnet.SetTransportDefaults(&http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: 10 * time.Second,
		TLSClientConfig: settings, MaxIdleConnsPerHost: 25, DialContext: c.dialer.DialContext})
	return secured, nil
}

// run ends connections of certificates that were replaced, until ctx ends.
func (c *credentials) run(ctx context.Context) error {
	if c.manager == nil {
		<-ctx.Done()
		return nil
	}
	defer c.manager.Stop()
	tick := time.NewTicker(rotationCheck)
	defer tick.Stop()
	last := c.manager.Current()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := c.manager.Current()
		if now == nil || last != nil && bytes.Equal(last.Certificate[0], now.Certificate[0]) {
			continue
		}
		c.log.Info("the node's certificate was replaced, connections are made anew")
		last = now
		c.dialer.CloseAll()
	}
}

// writeNodeKubeconfig writes the kubeconfig that names the rotated certificate.
func writeNodeKubeconfig(o *flags.Options, from *rest.Config) error {
	pair := filepath.Join(o.CertDir, "kubelet-client-current.pem")
	out := clientcmdapi.NewConfig()
	out.Clusters["default-cluster"] = &clientcmdapi.Cluster{Server: from.Host, InsecureSkipTLSVerify: from.Insecure,
		CertificateAuthorityData: from.CAData, TLSServerName: from.ServerName}
	out.AuthInfos["default-auth"] = &clientcmdapi.AuthInfo{ClientCertificate: pair, ClientKey: pair}
	out.Contexts["default-context"] = &clientcmdapi.Context{Cluster: "default-cluster", AuthInfo: "default-auth", Namespace: "default"}
	out.CurrentContext = "default-context"
	return clientcmd.WriteToFile(*out, o.Kubeconfig)
}
