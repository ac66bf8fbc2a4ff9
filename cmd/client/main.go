// Command client moves files to and from a DFS-Go cluster.
package main

import (
	"os"

	"github.com/dfs-go/dfs-go/internal/cli"
)

func main() { os.Exit(cli.Execute(cli.ClientMain)) }
