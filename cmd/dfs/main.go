// Command dfs is the whole of DFS-Go in one binary: daemons, client and tools.
package main

import (
	"os"

	"github.com/dfs-go/dfs-go/internal/cli"
)

func main() { os.Exit(cli.Execute(cli.Main)) }
