// What operator-sdk and the catalogs' pipelines ask of a bundle: their own validators, one finding per line of JSON. What `opm validate`
// checks of a file-based catalog: its first problem, or nothing.
//
//	olm BUNDLE
//	olm catalog FOLDER
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/operator-framework/api/pkg/manifests"
	"github.com/operator-framework/api/pkg/validation"
	interfaces "github.com/operator-framework/api/pkg/validation/interfaces"
	"github.com/operator-framework/operator-registry/alpha/declcfg"
)

// All but the one for architectures, which has docker pull the images.
var validators = interfaces.Validators{
	validation.PackageManifestValidator,
	validation.ClusterServiceVersionValidator,
	validation.CustomResourceDefinitionValidator,
	validation.BundleValidator,
	validation.OperatorHubV2Validator,
	validation.StandardCategoriesValidator,
	validation.StandardCapabilitiesValidator,
	validation.ObjectValidator,
	validation.OperatorGroupValidator,
	validation.CommunityOperatorValidator,
	validation.AlphaDeprecatedAPIsValidator,
	validation.GoodPracticesValidator,
}

func catalog(folder string) {
	found, err := declcfg.LoadFS(context.Background(), os.DirFS(folder))
	if err == nil {
		_, err = declcfg.ConvertToModel(*found)
	}
	if err != nil {
		fmt.Println(err)
	}
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "catalog" {
		catalog(os.Args[2])
		return
	}
	bundle, err := manifests.GetBundleFromDir(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	objects := []interface{}{bundle, bundle.CSV}
	for _, object := range bundle.Objects {
		objects = append(objects, object)
	}
	lines := json.NewEncoder(os.Stdout)
	for _, result := range validators.Validate(objects...) {
		for _, found := range append(result.Errors, result.Warnings...) {
			_ = lines.Encode(map[string]any{"level": found.Level, "type": found.Type, "detail": found.Detail})
		}
	}
}
