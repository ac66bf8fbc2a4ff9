// Command datanode runs a DataNode.
package main

import (
	"os"

	"github.com/dfs-go/dfs-go/internal/cli"
)

func main() { os.Exit(cli.Execute(cli.DataNodeMain)) }
