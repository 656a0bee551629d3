from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("catalogue", "0003_lighter_versions"),
    ]

    operations = [
        migrations.AddField(
            model_name="cataloguemodel",
            name="dimensions",
            field=models.PositiveIntegerField(
                default=0,
                help_text="Numbers in a vector, of a model that makes embeddings; else 0.",
            ),
        ),
        migrations.AlterField(
            model_name="cataloguemodel",
            name="kind",
            field=models.CharField(
                choices=[
                    ("base", "Base"),
                    ("instruct", "Instruct"),
                    ("embedding", "Embedding"),
                ],
                max_length=12,
            ),
        ),
    ]
