"""Models, versions and operations: what is deployed, under which name, from which files.

`service.RegistryService` is what the API calls; `deployer.Deployer` carries the long-running operations out.
"""
