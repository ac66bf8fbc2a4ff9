// Command namenode runs a NameNode.
package main

import (
	"os"

	"github.com/dfs-go/dfs-go/internal/cli"
)

func main() { os.Exit(cli.Execute(cli.NameNodeMain)) }
