#!/bin/bash

# Parameters
#SBATCH --account=me
#SBATCH --array=0-3%4
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-task=1
#SBATCH --job-name=golden.IDENTITY
#SBATCH --mail-type=FAIL
#SBATCH --mem=32G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output=RESULTS/golden/slurm/SUBMISSION/%A_%a_0_log.out
#SBATCH --partition=a100
#SBATCH --requeue
#SBATCH --signal=USR2@60
#SBATCH --time=90

# setup
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output RESULTS/golden/slurm/SUBMISSION/%A_%a_%t_log.out PYTHON -u -m submitit.core._submit RESULTS/golden/slurm/SUBMISSION
