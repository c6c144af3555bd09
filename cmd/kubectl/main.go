// SPDX-License-Identifier: Apache-2.0

// Command kubectl is upstream's kubectl as a separate executable. The build
// embeds it into kaji, which unpacks it at the first `kaji kubectl`: linked into
// kaji itself, its package initialisation would slow down every other verb.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		util.CheckErr(err)
	}
	os.Exit(0)
}
